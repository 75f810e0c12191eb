"""The command ``agenta-ai``.

grpc is only imported when a server is called, YAML when a file needs it, rich when progress is drawn on a terminal.
"""

from agenta_ai.cli.access import CREDENTIALS
from agenta_ai.cli.program import main

__all__ = ["CREDENTIALS", "main"]
