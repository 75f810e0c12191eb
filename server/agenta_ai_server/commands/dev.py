"""The service together with a stand-in for Agenta, on this machine alone."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from agenta_ai.cli import CREDENTIALS
from agenta_ai_server import settings
from agenta_ai_server.auth.key_file import create_key
from agenta_ai_server.commands import serve, stdout
from agenta_ai_server.standin.app import StandIn
from agenta_ai_server.standin.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LOOPBACK = ("127.0.0.1", "::1")
PORT = 50051
API_KEY = "standin-key"
APP = "ai-refine"
ENVIRONMENT = "production"
PRINCIPAL = {"user": "developer", "organization": "development", "project": "development"}

# The one that belongs to this server, whether or not its folder is on the PATH.
PROGRAM = Path(sys.executable).with_name("agenta-ai")

HINTS = """\
Agenta AI services on {address}, with a stand-in for Agenta on {standin}: offline, no account, no model.

The key for all that follows:
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

To see a failure, give the guidelines "standin: answer=lossy", "standin: delay=3", "standin: status=503 retry-after=2".
After the last the stand-in is left alone for a while, as Agenta would be, unless you set AGENTA_AI_GRPC_BREAKER=off.
Ctrl-C stops it.
"""

log = logging.getLogger(__name__)


async def run(environment: Mapping[str, str], fault: str, command: Sequence[str]) -> int:
    """Serve until told to stop, or until ``command`` has ended.

    Args:
        environment: For the server's own settings; those of Agenta are replaced by the stand-in's.
        fault: What the stand-in does wrong, in the words of :class:`Fault`; empty for nothing.
        command: A program and its arguments, run with ``AGENTA_AI_TARGET`` and ``AGENTA_AI_API_KEY`` set, and with no
            other credential; empty for none.

    Returns:
        The command's exit code; 0 without one.

    Raises:
        SettingsError: A setting or the fault's words are wrong, or the machine has no loopback address.
        ListenError: The address can't be listened on.
        OutputError: How to call it can't be printed.
    """
    _check_loopback()
    async with StandIn(api_key=API_KEY, app=APP, environment=ENVIRONMENT, fault=_fault(fault)) as standin:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "keys.json"
            key = create_key(path, **PRINCIPAL, permissions=["edit_workflows"], expires=None)
            reading = settings.read(
                {
                    # A command learns the port, and may run while another service has the usual one.
                    "AGENTA_AI_GRPC_LISTEN": f"{standin.host}:{0 if command else PORT}",
                    **{
                        name: value
                        for name, value in environment.items()
                        if name.startswith((settings.PREFIX, "OTEL_"))
                    },
                    "AGENTA_AI_GRPC_AUTH": "api_keys",
                    "AGENTA_AI_GRPC_API_KEYS_FILE": str(path),
                    "AGENTA_AI_GRPC_DRAIN_SECONDS": "0",
                    **standin.settings,
                }
            )
            for warning in reading.warnings:
                log.warning(warning)
            stop = serve.stop_signal(reading.settings.shutdown_grace_seconds)
            async with serve.running(reading.settings, reading.faults) as address:
                if command:
                    own = {name: value for name, value in environment.items() if name not in CREDENTIALS}
                    told = {"AGENTA_AI_TARGET": address, "AGENTA_AI_API_KEY": key}
                    return await _run_command(command, {**own, **told}, stop)
                stdout.say(HINTS.format(address=address, key=key, standin=standin.url, program=PROGRAM))
                await stop.wait()
    return 0


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
