"""The tools. Each module or package in here with ``NAME`` and ``provide`` is one; see ``docs/architecture.md``."""
