"""Runs one command, and returns an exit code whatever happens."""

from __future__ import annotations

import argparse
import io
import os
import sys
from contextlib import nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Any

from agenta_ai.cli import exits, parser, streams
from agenta_ai.cli.running import Running

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agenta_ai import AgentaError

# The commands that call the server.
_CALLING = {
    "status": "agenta_ai.cli.look:status",
    "tools": "agenta_ai.cli.look:tools",
    "whoami": "agenta_ai.cli.look:whoami",
    "call": "agenta_ai.cli.call:call",
    "refine": "agenta_ai.cli.refine:refine",
    "mcp": "agenta_ai.cli.mcp:mcp",
}
_DEFAULTS: dict[str, Any] = {
    "target": None,
    "tls": None,
    "timeout": None,
    "ca": None,
    "cert": None,
    "key": None,
    "color": "auto",
    "quiet": False,
    "json": False,
    "wait": False,
    "retries": None,
    "request_id": None,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The arguments; those of the process if not given.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    # Keep gRPC's own messages out of stderr.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    if sys.stdout is None:  # how Python says that it is closed
        return exits.complain("Cannot write to standard output: it is closed.", exits.USAGE)
    running = Running()
    try:
        try:
            code = _run(parser.build().parse_args(argv, argparse.Namespace(**_DEFAULTS)), running)
        except KeyboardInterrupt:
            code = _interrupted(running)
        finally:
            # This includes the help, before it raises SystemExit.
            sys.stdout.flush()
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        _give_up_output()
        return exits.BROKEN_PIPE
    except OSError as error:  # errors of files are reported where they occur
        _give_up_output()
        return exits.complain(f"Cannot write to standard output: {error.strerror}.{running.unseen()}", exits.USAGE)
    return code


def _interrupted(running: Running) -> int:
    for line in running.notes():
        exits.complain(line, exits.INTERRUPTED)
    try:
        sys.stdout.flush()
    except OSError:
        # The program that read it has been interrupted, too.
        _give_up_output()
    return exits.INTERRUPTED


def _give_up_output() -> None:
    """Discard what is left to write, so that the interpreter's exit doesn't fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(args: argparse.Namespace, running: Running) -> int:
    from agenta_ai.errors import AgentaError

    names: dict[str, str] = {}
    given = ""
    try:
        if args.command not in _CALLING:
            return _without_a_server(args)
        from agenta_ai.cli.access import access

        how = access(args)
        given, names = how.given, dict(how.names)
        module, _, name = _CALLING[args.command].partition(":")
        from agenta_ai.cli import waits

        with nullcontext() if args.quiet else waits.told():
            code: int = getattr(import_module(module), name)(args, how, running)
        return code
    except AgentaError as failure:
        words = exits.in_words(failure, given, names)
        return _failed(failure, args, exits.as_options(words) if args.command == "refine" else words)


def _failed(failure: AgentaError, args: argparse.Namespace, words: str) -> int:
    # Reported first: writing to standard output may fail.
    code = exits.complain(words, exits.exit_code(failure))
    if args.json and (content := exits.as_json(failure)):
        streams.print_json(content)
    return code


def _without_a_server(args: argparse.Namespace) -> int:
    match args.command:
        case "help":
            parser.build().parse_args([args.topic, "--help"] if args.topic else ["--help"])
        case "version":
            parser.build().parse_args(["--version"])
        case "completion":
            from importlib.resources import files

            sys.stdout.write(files("agenta_ai.cli").joinpath("completion", args.shell).read_text(encoding="utf-8"))
        case "target":
            from agenta_ai.cli import target

            return target.run(args)
        case "mcp config":
            from agenta_ai.cli import mcp_config

            return mcp_config.run(args)
    return exits.OK
