"""The command ``agenta-ai``.

Only argparse is imported here: grpc waits until a server is called, rich until something is drawn on a terminal.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from agenta_ai import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager

    from agenta_ai import RefinedPrompt, SyncClient, ToolStatus

DEFAULT_TARGET = "127.0.0.1:50051"

OK, TOOL_FAILED, USAGE, NOT_ALLOWED, LIMITED, UNAVAILABLE, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 3, 4, 5, 130, 141

EXIT_CODES = {
    "INVALID_ARGUMENT": USAGE,
    "NOT_FOUND": USAGE,
    "UNAUTHENTICATED": NOT_ALLOWED,
    "PERMISSION_DENIED": NOT_ALLOWED,
    "RESOURCE_EXHAUSTED": LIMITED,
}

EPILOG = """\
exit codes: 0 fine, 1 the tool failed, 2 wrong usage or input, 3 not allowed, 4 rate limited, 5 no answer or another
failure. AGENTA_AI_TARGET names the server if --target doesn't."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: The arguments; those of the process if not given.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    # gRPC writes notes of its own to stderr, which is for one line of ours.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    nothing_given = argparse.Namespace(target=None, tls=None, timeout=None)
    try:
        code = _run(_parser().parse_args(argv, nothing_given))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes once more when it exits, and must not fail then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return code


def _run(args: argparse.Namespace) -> int:
    from agenta_ai import AgentaError, CallFailed, InvalidInput, SyncClient, ToolFailed

    target = args.target or os.environ.get("AGENTA_AI_TARGET") or DEFAULT_TARGET
    try:
        with SyncClient(target, tls=args.tls) as client:
            code: int = args.command(client, args)
            return code
    except ToolFailed as failure:
        return _complain(failure, TOOL_FAILED)
    except InvalidInput as failure:
        return _complain(failure, USAGE)
    except CallFailed as failure:
        return _complain(failure, EXIT_CODES.get(failure.code.name, UNAVAILABLE))
    except AgentaError as failure:
        return _complain(failure, UNAVAILABLE)


def _complain(failure: Exception, code: int) -> int:
    print("agenta-ai:", _printable(" ".join(str(failure).split())), file=sys.stderr)
    return code


# --- The commands


def _status(client: SyncClient, args: argparse.Namespace) -> int:
    with _waiting("asking for the status"):
        status = client.status(timeout=args.timeout)
    if args.json:
        return _print_json(status)
    since = f", since {status.start_time:%Y-%m-%d %H:%M:%S} UTC" if status.start_time else ""
    _say(f"{status.state.lower()}, version {status.server_version or 'unknown'}{since}")
    if not status.enabled:
        _say(f"not enabled; missing settings: {', '.join(status.missing_settings) or 'none named'}")
    for tool in status.tools:
        _say(f"{tool.tool.name}  {_allowance(tool)}")
    return OK


def _allowance(status: ToolStatus) -> str:
    limit = status.rate_limit
    if limit is None:
        return "no limit"
    wait = f", next call in {limit.next_call_delay:.0f} s" if limit.next_call_delay else ""
    return f"{limit.remaining} of {limit.burst} calls left, {limit.refill_per_minute} more a minute{wait}"


def _tools(client: SyncClient, args: argparse.Namespace) -> int:
    with _waiting("asking for the tools"):
        tools = client.list_tools(timeout=args.timeout)
    if args.json:
        return _print_json(tools)
    for tool in tools:
        _say(f"{tool.name}  {tool.title}\n    {tool.description}")
    return OK


def _call(client: SyncClient, args: argparse.Namespace) -> int:
    arguments = _arguments(_read("-") if args.json == "-" else args.json)
    with _waiting("calling the tool"):
        result = client.call_tool(args.name, arguments, request_id=args.request_id, timeout=args.timeout)
    _print_json(result)
    result.raise_for_error()
    return OK


def _refine(client: SyncClient, args: argparse.Namespace) -> int:
    template = _read(args.file)
    if args.output:
        _check_writable(Path(args.output))
    with _waiting("refining"):
        refined = client.refine_prompt(template, guidelines=args.guidelines, context=args.context, timeout=args.timeout)
    if args.json:
        _print_json(
            {
                "template": refined.template,
                "messages": refined.messages,
                "summary": refined.summary,
                "trace_id": refined.trace_id,
                "meta": refined.meta,
            }
        )
    else:
        _show(refined)
    if args.output:
        _write(Path(args.output), json.dumps(refined.template, ensure_ascii=False, indent=2) + "\n")
    return OK


def _show(refined: RefinedPrompt) -> None:
    _draw(line for change in refined.diff() for line in change.lines())
    _say(refined.summary)
    for warning in refined.meta.warnings:
        print("warning:", _printable(warning), file=sys.stderr)


# --- Files and streams


def _read(name: str) -> str:
    from agenta_ai import InvalidInput

    try:
        # utf-8-sig: editors on Windows put a byte order mark first, which is no JSON.
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise InvalidInput(f"cannot read {name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"cannot read {name}: it is no text in UTF-8") from None


def _arguments(text: str) -> dict[str, Any]:
    from agenta_ai import InvalidInput

    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the arguments are no JSON: {error}") from None
    if not isinstance(arguments, dict):
        raise InvalidInput('the arguments are no JSON object: they should look like {"name": "value"}')
    return arguments


def _check_writable(path: Path) -> None:
    """Tells before the model is paid for whether its answer could be kept."""
    from agenta_ai import InvalidInput

    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InvalidInput(f"cannot write {path}: choose another --output")


def _write(path: Path, text: str) -> None:
    from agenta_ai import InvalidInput

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error.strerror}") from None


def _print_json(value: object) -> int:
    print(json.dumps(value, ensure_ascii=False, indent=2, default=_jsonable))
    return OK


def _jsonable(value: object) -> object:
    import base64
    import dataclasses
    import datetime

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    raise TypeError(f"no JSON for {type(value).__name__}")


# --- The terminal


def _printable(text: str) -> str:
    """The text without control characters, by which a server could play tricks with the terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda found: ascii(found[0])[1:-1], text)


def _say(text: str) -> None:
    print(_printable(text))


def _console(stream: TextIO) -> Any:
    """A console of rich, or ``None`` if the stream is no terminal or rich isn't installed."""
    if not stream.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=True)


def _waiting(what: str) -> AbstractContextManager[object]:
    console = _console(sys.stderr)
    spinner: AbstractContextManager[object] = console.status(f"{what} …") if console else nullcontext()
    return spinner


def _draw(lines: Iterable[str]) -> None:
    console = _console(sys.stdout)
    styles = {"+": "green", "-": "red", "@": "cyan"}
    for line in lines:
        if console:
            console.print(_printable(line), style=styles.get(line[:1]))
        else:
            _say(line)


# --- The arguments


def _parser() -> argparse.ArgumentParser:
    common = _common()
    parser = argparse.ArgumentParser(
        prog="agenta-ai", description="Small AI tools, called by name.", epilog=EPILOG, parents=[common]
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    status = commands.add_parser("status", help="what the service is doing, and what you may use", parents=[common])
    status.set_defaults(command=_status)
    tools = commands.add_parser("tools", help="the tools that you may call", parents=[common])
    tools.set_defaults(command=_tools)
    for reading in (status, tools):
        reading.add_argument("--json", action="store_true", help="print JSON")

    call = commands.add_parser("call", help="call a tool; its answer is printed as JSON", parents=[common])
    call.add_argument("name", metavar="NAME", help="for example tools.agenta.api.refine_prompt")
    call.add_argument("--json", metavar="ARGS", default="{}", help="the arguments, a JSON object; - for standard input")
    call.set_defaults(command=_call)

    refine = commands.add_parser("refine", help="refine a prompt template and show what changed", parents=[common])
    refine.add_argument("file", metavar="FILE", help="the template, in JSON; - for standard input")
    refine.add_argument("-g", "--guidelines", default="", metavar="TEXT", help="what to mind")
    refine.add_argument("-c", "--context", default="", metavar="TEXT", help="what the prompt is for")
    refine.add_argument("-o", "--output", metavar="FILE", help="write the refined template to this file")
    refine.add_argument("--json", action="store_true", help="print JSON: template, messages, summary, trace_id, meta")
    refine.set_defaults(command=_refine)
    for paid in (call, refine):
        paid.add_argument("--request-id", metavar="UUID", help="give the same one again, and it isn't paid for twice")
    return parser


def _common() -> argparse.ArgumentParser:
    """The options that may stand before the command and after it.

    They have no default here: that of the command would overwrite what was given before it.
    """
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--target", metavar="HOST:PORT", help=f"the server; {DEFAULT_TARGET} by default")
    common.add_argument("--timeout", type=float, metavar="SECONDS", help="90 for tools and 10 for the rest by default")
    security = common.add_mutually_exclusive_group()
    security.add_argument("--tls", action="store_true", dest="tls", help="TLS, also to this machine")
    security.add_argument("--plaintext", action="store_false", dest="tls", help="no TLS, also to other machines")
    return common


if __name__ == "__main__":
    sys.exit(main())
