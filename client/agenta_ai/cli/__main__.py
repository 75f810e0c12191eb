"""Run the command: ``python -m agenta_ai.cli``."""

import sys

from agenta_ai.cli.program import main

if __name__ == "__main__":
    sys.exit(main())
