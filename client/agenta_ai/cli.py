"""The command ``agenta-ai``.

Only argparse is imported here: grpc waits until a server is called, rich until something is drawn on a terminal.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from uuid import uuid4

from agenta_ai import __version__
from agenta_ai.terminal import CONTROLS, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager

    import grpc

    from agenta_ai import AgentaError, RefinedPrompt, SyncClient, ToolStatus

DEFAULT_TARGET = "127.0.0.1:50051"

OK, TOOL_FAILED, USAGE, NOT_ALLOWED, LIMITED, UNAVAILABLE, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 3, 4, 5, 130, 141

EXIT_CODES = {
    "INVALID_ARGUMENT": USAGE,
    "NOT_FOUND": USAGE,
    "UNAUTHENTICATED": NOT_ALLOWED,
    "PERMISSION_DENIED": NOT_ALLOWED,
    "RESOURCE_EXHAUSTED": LIMITED,
}

TOOL_FAILURE = ("reason", "message", "retryable", "retry_delay", "field_violations", "meta")
CALL_FAILURE = ("reason", "message", "field_violations", "retry_delay", "request_id", "tool_was_run")

# The variables that say who calls, and the client's argument for each. Options would show in the list of processes.
CREDENTIALS = {"AGENTA_AI_API_KEY": "api_key", "AGENTA_AI_API_KEY_FILE": "api_key", "AGENTA_AI_TOKEN": "token"}

EPILOG = """\
environment: AGENTA_AI_TARGET names the server if --target doesn't. One of AGENTA_AI_API_KEY, AGENTA_AI_API_KEY_FILE (a
file that holds the key) and AGENTA_AI_TOKEN says who calls; no option does, because everybody on this machine can read
options. AGENTA_AI_PROJECT is the id of the project to act in.
exit codes: 0 fine, 1 the tool failed, 2 wrong usage, input or output, 3 not allowed, 4 rate limited, 5 no answer or
another failure."""


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
    nothing_given = argparse.Namespace(
        target=None, tls=None, timeout=None, ca=None, cert=None, key=None, wait=False, request_id=""
    )
    if sys.stdout is None:  # how Python says that it is closed
        return _complain("cannot write to standard output: it is closed", USAGE)
    try:
        try:
            code = _run(_parser().parse_args(argv, nothing_given))
        finally:
            # Also what help wrote, before it ends by SystemExit.
            sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _give_up_output()
        return BROKEN_PIPE
    except OSError as error:  # those of files are told where they come up
        _give_up_output()
        return _complain(f"cannot write to standard output: {error.strerror}", USAGE)
    return code


def _give_up_output() -> None:
    """The interpreter flushes once more when it exits, and must not fail then."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(args: argparse.Namespace) -> int:
    from agenta_ai import AgentaError, SyncClient

    target = args.target or os.environ.get("AGENTA_AI_TARGET") or DEFAULT_TARGET
    project = os.environ.get("AGENTA_AI_PROJECT") or None
    given = ""
    try:
        given, credentials = _credentials()
        with SyncClient(target, tls=_tls(args), project=project, wait_for_limit=args.wait, **credentials) as client:
            code: int = args.command(client, args)
            return code
    except AgentaError as failure:
        # Complained of first: standard output may not take its part.
        way_out = _way_out(failure, given or ("--cert" if args.cert else ""), args.request_id)
        code = _complain(way_out, _exit_code(failure))
        # What ``call`` prints is JSON always.
        if args.json or args.command is _call:
            _print_failure(failure)
        return code


def _way_out(failure: AgentaError, given: str, request_id: str) -> str:
    """The failure in the words of the command line, where the client's own sentence names arguments.

    Args:
        failure: What was raised.
        given: The variable or option that said who calls; empty if none did.
        request_id: That of the call; empty if no tool was called.
    """
    from agenta_ai import CallFailed, InvalidInput

    if isinstance(failure, InvalidInput):
        argument, colon, complaint = str(failure).partition(":")
        variables = {CREDENTIALS.get(given): given, "project": "AGENTA_AI_PROJECT"}
        return variables.get(argument, argument) + colon + complaint
    if not isinstance(failure, CallFailed) or failure.code.name != "UNAUTHENTICATED":
        sentence = str(failure).replace(f'request_id="{request_id}"', f"--request-id {request_id}")
        return sentence.replace("pass tls=True", "pass --tls")
    if not given:
        return "the server wants to know who calls: set AGENTA_AI_API_KEY"
    return f"the server does not accept {given}, or no longer: set a valid one"


def _exit_code(failure: AgentaError) -> int:
    from agenta_ai import CallFailed, InvalidInput, ToolFailed

    if isinstance(failure, ToolFailed):
        return TOOL_FAILED
    if isinstance(failure, InvalidInput):
        return USAGE
    return EXIT_CODES.get(failure.code.name, UNAVAILABLE) if isinstance(failure, CallFailed) else UNAVAILABLE


def _complain(failure: object, code: int) -> int:
    _note(f"agenta-ai: {' '.join(str(failure).split())}")
    return code


def _print_failure(failure: AgentaError) -> None:
    """Prints for scripts what came back instead of a result, if anything did."""
    from agenta_ai import CallFailed, ToolFailed

    if isinstance(failure, ToolFailed):
        _print_json(_attributes(failure, TOOL_FAILURE))
    elif isinstance(failure, CallFailed):
        _print_json({"code": failure.code.name, **_attributes(failure, CALL_FAILURE)})


def _attributes(failure: AgentaError, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(failure, name) for name in names}


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
    from agenta_ai import ToolFailed

    arguments = _arguments(_read("-") if args.json == "-" else args.json)
    with _waiting("calling the tool"):
        result = client.call_tool(args.name, arguments, request_id=args.request_id, timeout=args.timeout)
    _print_json(result)
    try:
        result.raise_for_error()
    except ToolFailed as failure:  # caught here, because its JSON is printed already
        return _complain(failure, TOOL_FAILED)
    return OK


def _refine(client: SyncClient, args: argparse.Namespace) -> int:
    template = _read(args.file)
    _check_output(args)
    with _waiting("refining"):
        refined = client.refine_prompt(
            template,
            guidelines=args.guidelines,
            context=args.context,
            request_id=args.request_id,
            timeout=args.timeout,
        )
    # Each is tried, whatever befalls the other: the answer was paid for.
    try:
        if args.output:
            _write(args.output, _to_json(refined.template) + "\n")
    finally:
        _print_refined(refined, args)
    return OK


def _print_refined(refined: RefinedPrompt, args: argparse.Namespace) -> None:
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
        return
    if args.output == "-":
        # Standard output is the template alone.
        _note(refined.summary)
    else:
        _draw(line for change in refined.diff() for line in change.lines())
        _say(refined.summary)
    for warning in refined.meta.warnings:
        _note(f"warning: {warning}")


# --- Who calls


def _credentials() -> tuple[str, dict[str, Any]]:
    """The variable that says who calls, empty if none does, and the client's arguments."""
    from agenta_ai import InvalidInput

    given = [name for name in CREDENTIALS if os.environ.get(name)]
    if len(given) > 1:
        raise InvalidInput(f"{' and '.join(given)} are set: keep one of them")
    for name in given:
        value = os.environ[name]
        if name.endswith("_FILE"):
            # Files end in a newline.
            value = _read(value).strip()
        return name, {CREDENTIALS[name]: value}
    return "", {}


def _tls(args: argparse.Namespace) -> bool | grpc.ChannelCredentials | None:
    """What the client is told of TLS."""
    from agenta_ai import InvalidInput

    if not (args.ca or args.cert or args.key):
        tls: bool | None = args.tls
        return tls
    if args.tls is False:
        raise InvalidInput("--plaintext has no use for --ca, --cert and --key: leave out the one or the others")
    if bool(args.cert) != bool(args.key):
        raise InvalidInput("--cert and --key belong together: give both")
    import grpc

    ca, cert, key = (_read_bytes(name) if name else None for name in (args.ca, args.cert, args.key))
    _check_certificates(args)
    return grpc.ssl_channel_credentials(ca, key, cert)


def _check_certificates(args: argparse.Namespace) -> None:
    """Says what is wrong with the files, of which gRPC would only say that it cannot connect."""
    import ssl

    from agenta_ai import InvalidInput

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if args.ca:
            context.load_verify_locations(args.ca)
    except OSError:  # ssl has its errors among them
        raise InvalidInput(f"--ca {args.ca}: must hold certificates in PEM") from None
    try:
        if args.cert:
            # An empty password, because ssl would ask for one on the terminal.
            context.load_cert_chain(args.cert, args.key, password="")
    except OSError:  # ssl has its errors among them
        raise InvalidInput("--cert and --key: must be a certificate and its own key, in PEM and unencrypted") from None


# --- Files and streams


def _read(name: str) -> str:
    from agenta_ai import InvalidInput

    try:
        # utf-8-sig: editors on Windows put a byte order mark first, which is no JSON.
        return _read_bytes(name).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidInput(f"cannot read {_shown(name)}: it is no text in UTF-8") from None


def _read_bytes(name: str) -> bytes:
    from agenta_ai import InvalidInput

    if name == "-" and sys.stdin is None:
        raise InvalidInput(f"cannot read {_shown(name)}: it is closed")
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot read {_shown(name)}: {error.strerror}") from None


def _shown(name: str) -> str:
    return "standard input" if name == "-" else name


def _arguments(text: str) -> dict[str, Any]:
    from agenta_ai import InvalidInput

    try:
        if not text.strip():
            raise ValueError("they are empty")
        arguments = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the arguments are no JSON: {error}") from None
    if not isinstance(arguments, dict):
        raise InvalidInput('the arguments are no JSON object: they should look like {"name": "value"}')
    return arguments


def _check_output(args: argparse.Namespace) -> None:
    """Tells before the model is paid for whether its answer could be kept."""
    from agenta_ai import InvalidInput

    name = args.output
    if name == "-" and args.json:
        raise InvalidInput("--output - and --json both want standard output: choose one")
    if not name or name == "-":
        return
    kept_in = name if os.path.exists(name) else os.path.dirname(name) or "."
    if os.path.isdir(name) or not os.access(kept_in, os.W_OK):
        raise InvalidInput(f"cannot write {name}: choose another --output")


def _write(name: str, text: str) -> None:
    from agenta_ai import InvalidInput

    if name == "-":
        sys.stdout.write(text)
        return
    try:
        # Half of a surrogate pair is no text, but its escape is what JSON has for it.
        Path(name).write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise InvalidInput(f"cannot write {name}: {error.strerror}") from None


def _print_json(value: object) -> int:
    print(_to_json(value))
    return OK


def _to_json(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, indent=2, default=_jsonable)
    # Those that JSON lets stand, and some terminals obey.
    return CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


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


def _say(text: str) -> None:
    print(printable(text))


def _note(text: str) -> None:
    """Writes to standard error. Where that is closed, print would choose standard output."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(printable(text), file=sys.stderr)


def _console(stream: TextIO | None) -> Any:
    """A console of rich, or ``None`` if the stream is no terminal or rich isn't installed."""
    if stream is None or not stream.isatty():
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
            console.print(printable(line), style=styles.get(line[:1]))
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
        reading.add_argument("--json", action="store_true", help="print JSON, also of a failure")

    call = commands.add_parser("call", help="call a tool; its answer is printed as JSON", parents=[common])
    call.add_argument("name", metavar="NAME", help="for example tools.agenta.api.refine_prompt")
    call.add_argument("--json", metavar="ARGS", default="{}", help="the arguments, a JSON object; - for standard input")
    call.set_defaults(command=_call)

    refine = commands.add_parser("refine", help="refine a prompt template and show what changed", parents=[common])
    refine.add_argument("file", metavar="FILE", help="the template, in JSON; - for standard input")
    refine.add_argument("-g", "--guidelines", default="", metavar="TEXT", help="what to mind")
    refine.add_argument("-c", "--context", default="", metavar="TEXT", help="what the prompt is for")
    refine.add_argument(
        "-o", "--output", metavar="FILE", help="write the refined template to this file; - for standard output"
    )
    refine.add_argument(
        "--json",
        action="store_true",
        help="print JSON: template, messages, summary, trace_id, meta; of a failure its reason, message, …",
    )
    refine.set_defaults(command=_refine)
    for paid in (call, refine):
        paid.add_argument(
            "--wait", action="store_true", help="wait for a rate limit, within --timeout and at most four times"
        )
        paid.add_argument(
            "--request-id",
            metavar="UUID",
            default=str(uuid4()),
            help="names the call, so that a repeat gets its result; a new one if not given",
        )
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
    common.add_argument("--ca", metavar="FILE", help="TLS, trusting these authorities, not the system's; in PEM")
    common.add_argument("--cert", metavar="FILE", help="TLS, with this certificate to say who calls; in PEM")
    common.add_argument("--key", metavar="FILE", help="the key of --cert; in PEM, unencrypted")
    return common


if __name__ == "__main__":
    sys.exit(main())
