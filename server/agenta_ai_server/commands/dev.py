"""Runs the service with a stand-in for Agenta, only on this machine."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from agenta_ai.cli import CREDENTIALS
from agenta_ai_server import settings
from agenta_ai_server.auth.key_file import create_key
from agenta_ai_server.commands import serve, stdout
from agenta_ai_server.commands.tools.canned import canned_prompt
from agenta_ai_server.files.reloading import ReloadingDocument
from agenta_ai_server.standin.app import StandIn
from agenta_ai_server.standin.canned import MODEL
from agenta_ai_server.standin.faults import Fault
from agenta_ai_server.standin.samples import samples
from agenta_ai_server.tools.catalog import MAX_NAMES
from agenta_ai_server.tools.tools_file import read
from agenta_ai_server.tools.tools_file.following import LOOK_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from agenta_ai_server.tools.tools_file.definition import ToolDefinition

LOOPBACK = ("127.0.0.1", "::1")
PORT = 50051
API_KEY = "standin-key"
APP = "ai-refine"
ENVIRONMENT = "production"
TOOLS_FILE = "AGENTA_AI_GRPC_TOOLS_FILE"
# The permission of a tool that names none, so that tools that are added later are visible too.
DEFAULT_PERMISSION = "run_service"
PRINCIPAL = {"user": "developer", "organization": "development", "project": "development"}

# The one that belongs to this server, whether or not its folder is on the PATH.
PROGRAM = Path(sys.executable).with_name("agenta-ai")

HINTS = """\
Agenta AI services on {address}, with a stand-in for Agenta on {standin}: offline, no account, no model.

The key for all commands below:
  export AGENTA_AI_API_KEY={key}

With grpcurl:
  grpcurl -plaintext -H "authorization: ApiKey $AGENTA_AI_API_KEY" {address} agenta.ai.v1.ToolService/Status
  grpcurl -plaintext -H "authorization: ApiKey $AGENTA_AI_API_KEY" \\
    -d '{{"name": "tools.agenta.api.refine_prompt", "arguments": {{"prompt_template_json":
    "{{\\"messages\\":[{{\\"role\\":\\"user\\",\\"content\\":\\"Please translate {{{{text}}}}\\"}}]}}"}}}}' \\
    {address} agenta.ai.v1.ToolService/CallTool

With Python:

import os
from agenta_ai import SyncClient
with SyncClient("{address}", api_key=os.environ["AGENTA_AI_API_KEY"]) as client:
    refined = client.refine_prompt({{"messages": [{{"role": "user", "content": "Please translate {{{{text}}}}"}}]}})
    print(refined.summary, refined.messages)

With the command line:
  {program} --target {address} refine examples/support_agent.json -g "Be brief"

To read and change what is deployed in the stand-in, as in Agenta (provision, tools pull, tools diff):
  export AGENTA_AI_SERVICES_API_URL={standin} AGENTA_API_KEY={api_key} \\
    AGENTA_AI_SERVICES_ENVIRONMENT_SLUG={environment}

To see a failure, pass one of these as guidelines:
  "standin: answer=lossy", "standin: delay=3", "standin: status=503 retry-after=2"
After the last one, the circuit breaker refuses calls for a while, unless you set AGENTA_AI_GRPC_BREAKER=off.
Ctrl-C stops it.
"""

EMPTY_HINT = """
Nothing is deployed in the stand-in, so calls fail. To deploy the refine prompt, after the last export:
  agenta-ai-server provision --environment {environment} --model gpt-4o-mini
"""

TOOL_HINTS = """
The tools of {file}, which is reloaded when it changes: {names}. To call the first:
  grpcurl -plaintext -H "authorization: ApiKey $AGENTA_AI_API_KEY" \\
    -d '{call}' \\
    {address} agenta.ai.v1.ToolService/CallTool
"""

log = logging.getLogger(__name__)


async def run(
    environment: Mapping[str, str],
    fault: str,
    command: Sequence[str],
    tools_file: Path | None = None,
    *,
    empty: bool = False,
) -> int:
    """Serve until a signal, or until ``command`` has ended.

    Args:
        environment: For the server's own settings; those of Agenta are replaced by the stand-in's.
        fault: What the stand-in does wrong, in the words of :class:`Fault`; empty for nothing.
        command: A program and its arguments, run with ``AGENTA_AI_TARGET`` and ``AGENTA_AI_API_KEY`` set for the
            service, and with no other credential; for the stand-in with the variables of ``agenta-ai-server
            provision``; empty for none.
        tools_file: Says which tools there are besides the built-in ones; their prompts are deployed in the stand-in.
        empty: Whether nothing is deployed in the stand-in, so that one can do so.

    Returns:
        The command's exit code; 0 without one.

    Raises:
        SettingsError: A setting or the fault's words are wrong, or the machine has no loopback address.
        ListenError: The address can't be listened on.
        OutputError: How to call it can't be printed.
    """
    _check_loopback()
    file = _tools(tools_file) if tools_file else None
    app = "" if empty else APP
    async with StandIn(api_key=API_KEY, app=app, environment=ENVIRONMENT, fault=_fault(fault)) as standin:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "keys.json"
            definitions = file.content if file else ()
            permissions = sorted({"edit_workflows", DEFAULT_PERMISSION, *(each.permission for each in definitions)})
            key = create_key(path, **PRINCIPAL, permissions=permissions, expires=None)
            reading = settings.read(
                {
                    # The command gets the port, so another service may have the usual one.
                    "AGENTA_AI_GRPC_LISTEN": f"{standin.host}:{0 if command else PORT}",
                    # No model costs anything here.
                    "AGENTA_AI_GRPC_CASES_MODELS": MODEL,
                    **{
                        name: value
                        for name, value in environment.items()
                        if name.startswith((settings.PREFIX, "OTEL_"))
                    },
                    **({TOOLS_FILE: str(tools_file)} if tools_file else {}),
                    "AGENTA_AI_GRPC_AUTH": "api_keys",
                    "AGENTA_AI_GRPC_API_KEYS_FILE": str(path),
                    "AGENTA_AI_GRPC_DRAIN_SECONDS": "0",
                    **standin.settings,
                }
            )
            for warning in reading.warnings:
                log.warning(warning)
            stop = serve.stop_signal(reading.settings.shutdown_grace_seconds)
            deployed = _deployed(file, standin, deploy=not empty)
            async with deployed, serve.running(reading.settings, reading.faults) as address:
                if command:
                    own = {name: value for name, value in environment.items() if name not in CREDENTIALS}
                    told = {"AGENTA_AI_TARGET": address, "AGENTA_AI_API_KEY": key}
                    return await _run_command(command, {**own, **told, **_variables(standin)}, stop)
                hints = HINTS.format(
                    address=address,
                    key=key,
                    standin=standin.url,
                    api_key=API_KEY,
                    environment=ENVIRONMENT,
                    program=PROGRAM,
                )
                empty_hint = EMPTY_HINT.format(environment=ENVIRONMENT) if empty else ""
                stdout.say(hints + empty_hint + _hints_of_tools(definitions, tools_file, address))
                await stop.wait()
    return 0


def _variables(standin: StandIn) -> dict[str, str]:
    """Return the environment in which commands find the stand-in in place of Agenta."""
    return {
        "AGENTA_AI_SERVICES_API_URL": standin.url,
        "AGENTA_API_KEY": API_KEY,
        "AGENTA_AI_SERVICES_ENVIRONMENT_SLUG": ENVIRONMENT,
    }


def _tools(path: Path) -> ReloadingDocument[tuple[ToolDefinition, ...]]:
    def parsed(content: bytes, read_beside: Callable[[Path], bytes]) -> tuple[ToolDefinition, ...]:
        return read.parse(content, path.parent, read_beside=read_beside)

    try:
        return ReloadingDocument(path, parsed, every=0, patience=LOOK_SECONDS)
    except ValueError as error:
        raise settings.SettingsError([f"{TOOLS_FILE}: {error}"]) from None


@asynccontextmanager
async def _deployed(
    file: ReloadingDocument[tuple[ToolDefinition, ...]] | None, standin: StandIn, *, deploy: bool
) -> AsyncIterator[None]:
    """Update the prompts in the stand-in when the tools file changes."""
    for sample in samples(ENVIRONMENT) if deploy else ():
        standin.deploy(sample)
    if file is None:
        yield
        return

    async def follow() -> None:
        while True:
            definitions = await asyncio.to_thread(lambda: file.content)
            standin.offer([canned_prompt(definition, ENVIRONMENT) for definition in definitions], deploy=deploy)
            await asyncio.sleep(LOOK_SECONDS / 2)

    standin.offer([canned_prompt(definition, ENVIRONMENT) for definition in file.content], deploy=deploy)
    task = asyncio.create_task(follow())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _hints_of_tools(definitions: Sequence[ToolDefinition], file: Path | None, address: str) -> str:
    """Return how to call the first tool of a file."""
    if not definitions:
        return ""
    first = definitions[0]
    arguments = dict(first.examples[0].arguments) if first.examples else {}
    call = json.dumps({"name": first.name, "arguments": arguments}).replace("'", "\\u0027")
    names = ", ".join(definition.name for definition in definitions[:MAX_NAMES])
    return TOOL_HINTS.format(file=file, names=names, address=address, call=call)


def _check_loopback() -> None:
    """Raise SettingsError if the stand-in could not be reached on this machine."""
    found = [_why_unreachable(host) for host in LOOPBACK]
    if all(found):
        fault = (
            f"{LOOPBACK[0]}, where 'dev' runs its stand-in for Agenta, can't be used: {found[0]}. Bring up the "
            "loopback interface: ip link set lo up; ip addr add 127.0.0.1/8 dev lo"
        )
        raise settings.SettingsError([fault])


def _why_unreachable(host: str) -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, 0), family=family) as listener:
            socket.create_connection(listener.getsockname()[:2]).close()
    except OSError as error:
        return os.strerror(error.errno or 0)
    return ""


def _fault(words: str) -> Fault:
    try:
        return Fault.parse(words)
    except ValueError as error:
        raise settings.SettingsError([f"--fault: {error}"]) from None


async def _run_command(command: Sequence[str], environment: Mapping[str, str], stop: asyncio.Event) -> int:
    try:
        process = await asyncio.create_subprocess_exec(*command, env=environment)
    except OSError as error:
        raise settings.SettingsError([f"COMMAND: can't run {command[0]}: {error.strerror}."]) from None
    stopped = asyncio.create_task(stop.wait())
    ended = asyncio.create_task(process.wait())
    await asyncio.wait([stopped, ended], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not ended.done():
        process.terminate()
    return await ended
