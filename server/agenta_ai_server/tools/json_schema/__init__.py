"""JSON Schema 2020-12: what a schema may hold so that checking a value is always quick, and the checking itself."""
