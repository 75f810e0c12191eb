"""JSON Schema 2020-12: limits on schemas that keep checks fast, and the checks."""
