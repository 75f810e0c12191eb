"""The tools. Each module or package in here with a function ``provide`` is one; see ``docs/architecture.md``."""
