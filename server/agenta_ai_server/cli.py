"""The command ``agenta-ai-server``."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import resource
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from agenta_ai import __version__
from agenta_ai_server.commands import stdout
from agenta_ai_server.commands.tools.parser import add_tools

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

Result = TypeVar("Result")

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_LISTEN = 3
EXIT_BROKEN_PIPE = 141

# New objects after which garbage among them is collected, about a megabyte; how many such collections until garbage is
# collected among older objects, too; and how many of those until it is collected among all.
GARBAGE_THRESHOLDS = 10_000, 10, 30

PROVISION = """\
Create the application, commit the prompt and deploy it, unless that is already done. Read the address of Agenta from
AGENTA_AI_SERVICES_API_URL and an API key from AGENTA_API_KEY, whose owner must have the developer role or higher.
Print the server's settings.
"""
PROVISION_EXAMPLES = """\
examples:
  agenta-ai-server provision --environment production --model gpt-4o-mini
  agenta-ai-server provision --environment production --model gpt-4o-mini --dry-run
  agenta-ai-server provision --environment production --rollback
  agenta-ai-server provision --environment production --tools tools.toml
  agenta-ai-server provision --environment production --tools tools.toml --only tools.acme.support.summarize --rollback

exit codes: 0 success, or nothing to do; 1 refused by Agenta, or because of what is deployed there; 2 invalid arguments,
settings or tools file
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    0 success, 1 a check found a fault, a key was made and can't be printed, or a prompt can't be provisioned,
    2 wrong arguments, settings or output, 3 an address that is taken, 141 nobody reads the output any more.
    """
    stdout.prepare_streams()
    try:
        with stdout.printed():
            arguments = _parser().parse_args(argv)
        return _command(arguments)
    except stdout.OutputError as error:
        if error.is_unread:
            return EXIT_BROKEN_PIPE
        print(f"agenta-ai-server can't write to standard output: {error}.", file=sys.stderr)
        return EXIT_USAGE


def _command(arguments: argparse.Namespace) -> int:
    # A copy: variables set below are for this process, not for a command that "dev" runs.
    arguments.environment = dict(os.environ)
    # We report a taken port better than grpc does.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # uvloop forks, and about one worker in a hundred would die in grpc's fork handlers before it runs.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    # Looking for pydantic's plugins takes as long as importing a library, and we have none.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # Imported modules stay. Collecting garbage among them would take a sixth of the start.
    gc.disable()
    # Where rich is installed, httpx would import its command line with it, which is never used here.
    sys.modules.setdefault("httpx._main", cast("Any", None))
    # Imported late, so that --help is quick.
    try:
        from agenta_ai_server.rpc.server import ListenerFailed, ListenError
        from agenta_ai_server.settings import SettingsError
    except ModuleNotFoundError as error:
        print(
            f"agenta-ai-server needs {error.name}. Install the extra 'server': in a clone, pip install '.[server]'.",
            file=sys.stderr,
        )
        return EXIT_USAGE

    try:
        return int(arguments.run(arguments) or 0)
    except SettingsError as error:
        print("agenta-ai-server can't start with these settings:", *error.faults, sep="\n  ", file=sys.stderr)
        return EXIT_USAGE
    except ListenError as error:
        print(f"agenta-ai-server {error} {error.setting} sets the address.", file=sys.stderr)
        return EXIT_LISTEN
    except ListenerFailed as error:
        print(f"agenta-ai-server {error}", file=sys.stderr)
        return EXIT_FAILED
    finally:
        gc.enable()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agenta-ai-server",
        description="Agenta AI services over gRPC. Environment variables configure the server: see the README.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="serve calls until stopped by a signal")
    serve.add_argument(
        "--reuse-port",
        action="store_true",
        help="share the port with other processes that also set this; same as AGENTA_AI_GRPC_REUSE_PORT=true",
    )
    serve.set_defaults(run=_serve)
    dev = commands.add_parser(
        "dev",
        help="serve with a stand-in for Agenta on this machine, without an account or a model",
        description="Serve with a stand-in for Agenta on this machine. If a COMMAND is given, run it against the "
        "service, on a free port, and exit with its exit code.",
    )
    dev.add_argument("--listen", help="address of the service; overrides AGENTA_AI_GRPC_LISTEN")
    dev.add_argument("--fault", default="", help="how the stand-in fails, for example 'status=503 retry-after=2'")
    dev.add_argument(
        "--tools",
        metavar="FILE",
        type=Path,
        help="tools file whose prompts the stand-in has; overrides AGENTA_AI_GRPC_TOOLS_FILE",
    )
    dev.add_argument(
        "--empty", action="store_true", help="deploy nothing in the stand-in, so that you can try 'provision'"
    )
    dev.add_argument(
        "command", nargs="*", metavar="COMMAND", help="command to run with AGENTA_AI_TARGET set; then stop"
    )
    dev.set_defaults(run=_dev)
    _add_provision(
        commands.add_parser(
            "provision",
            help="deploy the refine prompt, or the prompts of a tools file, to your Agenta",
            description=PROVISION,
            epilog=PROVISION_EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    config = commands.add_parser("config", help="print the effective settings, and where each came from")
    config.add_argument("--json", action="store_true", help="print JSON")
    config.set_defaults(run=_config)
    check = commands.add_parser(
        "check",
        help="test the whole setup, and print a remedy for each problem",
        description="Test the whole setup: settings, files, certificates, addresses, Redis, the issuer's keys, "
        "Agenta. Exit codes: 0 everything is fine; 1 a failure or a warning; 2 invalid arguments.",
    )
    check.add_argument("--call", action="store_true", help="also refine a tiny prompt, which is billed")
    check.add_argument("--json", action="store_true", help="print JSON")
    check.set_defaults(run=_check)
    tools = commands.add_parser("tools", help="list the tools of a tools file, and compare it with what is deployed")
    add_tools(tools)
    tools.set_defaults(run=_tools)
    _add_keys(commands.add_parser("keys", help="create, list and revoke API keys of this service"))
    return parser


def _add_provision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--environment", dest="environment_slug", required=True, metavar="SLUG", help="environment to deploy to"
    )
    change = parser.add_mutually_exclusive_group()
    change.add_argument(
        "--model", metavar="NAME", help="the prompt's model, as Agenta names it, for example gpt-4o-mini"
    )
    change.add_argument("--rollback", action="store_true", help="deploy the version that was deployed before")
    parser.add_argument(
        "--application",
        metavar="SLUG",
        default="",
        help="application of the prompt; by default AGENTA_AI_SERVICES_REFINE_PROMPT_KEY, or else ai-refine",
    )
    parser.add_argument(
        "--tools",
        metavar="FILE",
        type=Path,
        help="deploy the prompts that this tools file names, not the refine prompt",
    )
    parser.add_argument(
        "--only",
        metavar="TOOL",
        action="append",
        default=[],
        help="with --tools: only the prompt of this tool; repeatable",
    )
    parser.add_argument("--api-key-file", metavar="FILE", type=Path, help="file with the key; overrides AGENTA_API_KEY")
    parser.add_argument("--dry-run", action="store_true", help="print the change as a diff, and change nothing")
    parser.add_argument("--overwrite", action="store_true", help="replace a prompt that provision didn't create")
    parser.set_defaults(run=_provision)


def _add_keys(parser: argparse.ArgumentParser) -> None:
    file = argparse.ArgumentParser(add_help=False)
    file.add_argument("--file", help="file of the keys; overrides AGENTA_AI_GRPC_API_KEYS_FILE")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    create = commands.add_parser("create", parents=[file], help="create a key, and print it; it is never shown again")
    create.add_argument("--user", required=True, help="id of the user that the key identifies")
    create.add_argument("--organization", required=True, help="id of the user's organization")
    create.add_argument("--project", required=True, help="id of the project that the key is for")
    create.add_argument("--workspace", default="", help="id of the workspace")
    create.add_argument("--plan", default="", help="name of the plan, for its rate limits")
    create.add_argument(
        "--permission",
        action="append",
        default=[],
        help="permission of the key, for example edit_workflows; repeatable",
    )
    create.add_argument("--expires", metavar="WHEN", help="90d, 12h or 2027-01-31; by default never")
    create.set_defaults(run=_keys("create"))
    show = commands.add_parser("list", parents=[file], help="list the keys, without their secrets")
    show.add_argument("--json", action="store_true", help="print JSON")
    show.set_defaults(run=_keys("show"))
    revoke = commands.add_parser("revoke", parents=[file], help="disable a key; servers notice within two seconds")
    revoke.add_argument("id", metavar="ID", help="the part of the key between its two underscores")
    revoke.set_defaults(run=_keys("revoke"))


def _keys(command: str) -> Callable[[argparse.Namespace], int]:
    def run(arguments: argparse.Namespace) -> int:
        from agenta_ai_server.commands import keys

        try:
            getattr(keys, command)(arguments)
        except ValueError as error:
            print(f"agenta-ai-server keys: {str(error).rstrip('.')}.", file=sys.stderr)
            return EXIT_USAGE
        except keys.KeyUnseen as error:
            print(f"agenta-ai-server keys: {error}", file=sys.stderr)
            return EXIT_FAILED
        return 0

    return run


def _serve(arguments: argparse.Namespace) -> None:
    from agenta_ai_server.agenta.trust import trusting_nobody

    # Not where aiohttp is imported: tests of callers share their process with the service, and may use it themselves.
    with trusting_nobody():
        from agenta_ai_server.commands import serve
    from agenta_ai_server.settings import read
    from agenta_ai_server.telemetry import logs

    reading = read({**arguments.environment, **({"AGENTA_AI_GRPC_REUSE_PORT": "true"} if arguments.reuse_port else {})})
    # All faults are reported in one message.
    logs.configure("critical" if reading.faults else reading.settings.log_level, reading.settings.log_format)
    for warning in reading.warnings:
        logging.getLogger(__name__).warning(warning)
    _raise_file_limit(reading.settings.open_files)
    _run(serve.serve(reading.settings, reading.faults))


def _raise_file_limit(needed: int) -> None:
    """Raise the limit of open files to what the process needs, or to the maximum."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted < needed:
        logging.getLogger(__name__).warning(
            "no more than %d files may be open, and %d may be needed: raise the limit (ulimit -Hn), or lower "
            "AGENTA_AI_GRPC_MAX_IN_FLIGHT",
            wanted,
            needed,
        )


def _dev(arguments: argparse.Namespace) -> int:
    from agenta_ai_server.commands import dev
    from agenta_ai_server.telemetry import logs

    settings = {"AGENTA_AI_GRPC_LISTEN": arguments.listen} if arguments.listen else {}
    logs.configure("warning" if arguments.command else "info", "text")
    given = arguments.environment.get(dev.TOOLS_FILE, "").strip()
    tools_file = arguments.tools or (Path(given) if given else None)
    environment = {**arguments.environment, **settings}
    return _run(dev.run(environment, arguments.fault, arguments.command, tools_file, empty=arguments.empty))


def _config(arguments: argparse.Namespace) -> None:
    from agenta_ai_server.assembly.service import find_faults
    from agenta_ai_server.commands import show_config
    from agenta_ai_server.settings import SettingsError, read
    from agenta_ai_server.telemetry import logs

    logs.configure("critical", "text")
    reading = read(arguments.environment)
    faults = _run(find_faults(reading.settings, reading.faults))
    if reading.faults:
        # A setting that is wrong has its default, which would be misleading to show.
        raise SettingsError(faults)
    for warning in reading.warnings:
        print(f"agenta-ai-server: {warning}", file=sys.stderr)
    described = list(show_config.described(reading.settings, arguments.environment))
    if arguments.json:
        stdout.say(json.dumps([asdict(setting) for setting in described], indent=2))
    else:
        stdout.say(show_config.table(described, _columns()))
    if faults:
        raise SettingsError(faults)


def _check(arguments: argparse.Namespace) -> int:
    from agenta_ai_server.commands import check
    from agenta_ai_server.telemetry import logs

    # The findings report what is wrong.
    logs.configure("critical", "text")
    findings = _run(check.run(arguments.environment, call=arguments.call))
    is_fine = all(finding.state == "ok" for finding in findings)
    if arguments.json:
        stdout.say(json.dumps({"ok": is_fine, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        stdout.say(check.table(findings, _columns()))
    return 0 if is_fine else EXIT_FAILED


def _provision(arguments: argparse.Namespace) -> int:
    from agenta_ai_server.commands import provision
    from agenta_ai_server.settings import SettingsError
    from agenta_ai_server.telemetry import logs

    logs.configure("critical", "text")
    options = provision.Options(
        environment=arguments.environment_slug,
        application=arguments.application,
        model=arguments.model or "",
        tools=arguments.tools,
        only=tuple(arguments.only),
        api_key_file=arguments.api_key_file,
        dry_run=arguments.dry_run,
        overwrite=arguments.overwrite,
        rollback=arguments.rollback,
    )
    try:
        return _run(provision.run(arguments.environment, options))
    except SettingsError as error:
        print("agenta-ai-server provision:", *error.faults, sep="\n  ", file=sys.stderr)
        return EXIT_USAGE


def _tools(arguments: argparse.Namespace) -> int:
    from agenta_ai_server.settings import SettingsError
    from agenta_ai_server.telemetry import logs

    logs.configure("critical", "text")
    try:
        ending: int | Coroutine[Any, Any, int] = arguments.command(arguments)
        return ending if isinstance(ending, int) else _run(ending)
    except SettingsError as error:
        print("agenta-ai-server tools:", *error.faults, sep="\n  ", file=sys.stderr)
        return EXIT_USAGE


def _columns() -> int:
    return max(shutil.get_terminal_size((120, 24)).columns, 60)


def _run(main: Coroutine[Any, Any, Result]) -> Result:
    import uvloop

    gc.freeze()
    gc.enable()
    # Calls leave few cycles. By default, waiting calls would be scanned again and again.
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    return uvloop.run(main)
