"""The parser of ``agenta-ai-server tools proto``. Imports nothing slow, so that --help is quick."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

EXAMPLES = """\
examples:
  agenta-ai-server tools proto                              number new fields in tools.lock, next to the tools file
  agenta-ai-server tools proto --out protos                 also write the .proto files and their descriptor set
  agenta-ai-server tools proto --out src --python           also write Python code for them

exit codes: 0 written, 1 a change would break callers and nothing was written, 2 invalid arguments, settings or file
"""


def add_proto(commands: Any) -> None:
    """Add the command, with ``command``: from the arguments to an exit code."""
    text = "number the fields of typed methods in the lock file, and write their .proto files"
    parser: argparse.ArgumentParser = commands.add_parser(
        "proto",
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--file", metavar="FILE", type=Path, help="tools file; overrides AGENTA_AI_GRPC_TOOLS_FILE")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder for the .proto files and tools.binpb")
    parser.add_argument(
        "--python",
        action="store_true",
        help="also write Python code, the package agenta_ai_tools, to DIR; needs grpcio-tools",
    )
    parser.add_argument(
        "--allow-breaking", action="store_true", help="write changes even if they break callers with older stubs"
    )
    parser.set_defaults(command=_proto)


def _proto(arguments: argparse.Namespace) -> int:
    from agenta_ai_server.commands.tools import proto

    options = proto.Options(
        file=arguments.file, out=arguments.out, python=arguments.python, allow_breaking=arguments.allow_breaking
    )
    return proto.run(arguments.environment, options)
