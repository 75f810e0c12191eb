"""The program as an operator meets it: start, faults, signals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc.aio
import psutil
import pytest
from calls import refine

from agenta_ai.v1 import tool_service_pb2 as pb
from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceStub
from agenta_ai_server.commands import serve
from agenta_ai_server.settings import SettingsError, read
from agenta_ai_server.testing import environment_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from agenta_ai.v1.tool_service_pb2 import CallToolResponse
    from agenta_ai_server.standin.app import StandIn

LISTENING = "listening on "


def environment(standin: StandIn | None = None, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AGENTA_AI_")}
    four = {
        "AGENTA_AI_SERVICES_API_URL": standin.url if standin else "",
        "AGENTA_AI_SERVICES_API_KEY": "standin-key",
        "AGENTA_AI_SERVICES_ENVIRONMENT_SLUG": "production",
        "AGENTA_AI_SERVICES_REFINE_PROMPT_KEY": "ai-refine",
        "AGENTA_AI_GRPC_LISTEN": "127.0.0.1:0",
        "AGENTA_AI_GRPC_AUTH": "none",
        "AGENTA_AI_GRPC_DRAIN_SECONDS": "0",
        "AGENTA_AI_GRPC_LIMITS": "off",
        "AGENTA_AI_GRPC_LOG_FORMAT": "text",
    }
    return {**kept, **four, **more}


@asynccontextmanager
async def process(
    *arguments: str, at_hangup: str = "SIG_DFL", **settings: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Runs ``agenta-ai-server`` and kills it if the test leaves it running.

    Args:
        arguments: Of the command.
        at_hangup: How the process treats SIGHUP when the server starts.
        settings: The environment.
    """
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        f"import signal, sys; signal.signal(signal.SIGHUP, signal.{at_hangup}); "
        "from agenta_ai_server.cli import main; sys.exit(main())",
        *arguments,
        env=settings,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.kill()
        await started.communicate()


async def address_of(started: asyncio.subprocess.Process) -> str:
    assert started.stderr
    async for line in started.stderr:
        if LISTENING.encode() in line:
            return line.decode().strip().partition(LISTENING)[2]
    raise AssertionError("ended before it listened")


async def output(started: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    out, err = await started.communicate()
    return started.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_lets_running_calls_end(number: signal.Signals, standin: StandIn) -> None:
    async with process("serve", **environment(standin)) as started:
        async with grpc.aio.insecure_channel(await address_of(started)) as channel:
            call = asyncio.ensure_future(_call(channel, "standin: delay=0.5"))
            await standin.when(lambda: standin.in_flight == 1)
            started.send_signal(number)
            assert not (await call).is_error
        code, _, err = await output(started)
    assert code == 0
    assert "Traceback" not in err


async def test_nohup_protects_against_the_end_of_the_terminal(standin: StandIn) -> None:
    async with process("serve", at_hangup="SIG_IGN", **environment(standin)) as started:
        async with grpc.aio.insecure_channel(await address_of(started)) as channel:
            started.send_signal(signal.SIGHUP)
            assert not (await _call(channel, "standin: delay=0.1")).is_error
        started.send_signal(signal.SIGTERM)
        assert (await output(started))[0] == 0


async def test_a_second_signal_ends_at_once(standin: StandIn) -> None:
    async with process("serve", **environment(standin)) as started:
        async with grpc.aio.insecure_channel(await address_of(started)) as channel:
            call = asyncio.ensure_future(_call(channel, "standin: delay=50"))
            await standin.when(lambda: standin.in_flight == 1)
            started.send_signal(signal.SIGTERM)
            assert started.stderr
            while b"stopping" not in await started.stderr.readline():
                pass
            started.send_signal(signal.SIGTERM)
            with pytest.raises(grpc.aio.AioRpcError):
                await call
        assert await started.wait() == -signal.SIGTERM


async def _call(channel: grpc.aio.Channel, guidelines: str) -> CallToolResponse:
    return await ToolServiceStub(channel).CallTool(refine(guidelines=guidelines))


async def test_wrong_settings_stop_the_start_with_one_message() -> None:
    wrong = environment(AGENTA_AI_GRPC_LISTEN="nowhere", AGENTA_AI_GRPC_REFLECTION="maybe")
    async with process("serve", **wrong) as started:
        code, out, err = await output(started)
    assert (code, out) == (2, "")
    assert err.splitlines()[0] == "agenta-ai-server can't start with these settings:"
    assert [line.split(":")[0].strip() for line in err.splitlines()[1:]] == [
        "AGENTA_AI_GRPC_LISTEN",
        "AGENTA_AI_GRPC_REFLECTION",
    ]


async def test_faults_of_settings_and_of_files_are_one_message(standin: StandIn, tmp_path: Path) -> None:
    (tmp_path / "limits.toml").write_text("burst = lots")
    wrong = {
        "AGENTA_AI_GRPC_RETRIES": "many",
        "AGENTA_AI_GRPC_REPLAY_SECONDS": "60",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318",
        "OTEL_BSP_MAX_QUEUE_SIZE": "100",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "x",
        "AGENTA_AI_GRPC_AUTH": "api_keys,jwt",
        "AGENTA_AI_GRPC_API_KEYS_FILE": str(tmp_path),
        "AGENTA_AI_GRPC_LIMITS": "on",
        "AGENTA_AI_GRPC_LIMITS_FILE": str(tmp_path / "limits.toml"),
    }
    async with process("serve", **environment(standin, **wrong)) as started:
        code, out, err = await output(started)
    assert (code, out) == (2, "")
    first, *faults = err.splitlines()
    assert first == "agenta-ai-server can't start with these settings:"
    assert [fault.split(":")[0].strip() for fault in faults] == [
        "AGENTA_AI_GRPC_REPLAY_SECONDS",
        "AGENTA_AI_GRPC_RETRIES",
        "AGENTA_AI_GRPC_AUTH",
        "AGENTA_AI_GRPC_AUTH",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
        "OTEL_BSP_MAX_QUEUE_SIZE",
        "AGENTA_AI_GRPC_LIMITS_FILE",
        "AGENTA_AI_GRPC_API_KEYS_FILE",
    ]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("AGENTA_AI_GRPC_RETRIES", "many"),
        ("AGENTA_AI_GRPC_LIMITS_FILE", "{folder}/none.toml"),
        ("AGENTA_AI_GRPC_IDEMPOTENCY_FILE", "{folder}"),
    ],
)
async def test_a_start_that_fails_writes_nothing(setting: str, value: str, standin: StandIn, tmp_path: Path) -> None:
    given = {"AGENTA_AI_GRPC_AUTH": "api_keys", "AGENTA_AI_GRPC_API_KEYS_FILE": str(tmp_path / "keys.json")}
    given |= {"AGENTA_AI_GRPC_LIMITS": "on", setting: value.format(folder=tmp_path)}
    reading = read(environment_for(standin) | given)
    with pytest.raises(SettingsError, match=setting):
        async with serve.running(reading.settings, reading.faults):
            pass
    assert not os.listdir(tmp_path)


async def test_a_busy_port_stops_the_start(standin: StandIn) -> None:
    taken = standin.url.removeprefix("http://")
    async with process("serve", **environment(standin, AGENTA_AI_GRPC_LISTEN=taken)) as started:
        code, _, err = await output(started)
    assert code == 3
    assert err.splitlines()[-1] == (
        f"agenta-ai-server can't listen on {taken}: it is in use. AGENTA_AI_GRPC_LISTEN sets the address."
    )


async def test_it_leaves_no_core_dump() -> None:
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        async with process("serve", **environment()) as started:
            await address_of(started)
            limits = psutil.Process(started.pid).rlimit(psutil.RLIMIT_CORE)
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
    assert limits == (0, before[1])


async def test_disabled_is_said_at_the_start() -> None:
    async with process("serve", **environment()) as started:
        await address_of(started)
        assert started.stderr
        assert b"disabled, because these are not set: AGENTA_AI_SERVICES_API_URL" in await started.stderr.readline()


@pytest.mark.parametrize("is_remembered", [False, True])
async def test_it_is_said_what_a_restart_forgets(is_remembered: bool, standin: StandIn, tmp_path: Path) -> None:
    remembered = {"AGENTA_AI_GRPC_IDEMPOTENCY_FILE": str(tmp_path / "ids.db")} if is_remembered else {}
    async with process("serve", **environment(standin, **remembered)) as started:
        await address_of(started)
        started.terminate()
        code, _, err = await output(started)
    assert code == 0
    assert ("a restart forgets" in err) is not is_remembered


async def test_dev_runs_a_command_and_ends_with_its_exit_code() -> None:
    script = "import os; print(os.environ['AGENTA_AI_TARGET']); raise SystemExit(7)"
    async with process(
        "dev", "--listen", "127.0.0.1:0", "--", sys.executable, "-c", script, **environment()
    ) as started:
        code, out, err = await output(started)
    assert (code, err) == (7, "")
    assert out.startswith("127.0.0.1:")


async def test_dev_runs_a_command_with_its_own_credential_alone() -> None:
    script = "import os; print(*sorted(name for name in os.environ if name.startswith('AGENTA_AI_')))"
    callers = {"AGENTA_AI_TOKEN": "t", "AGENTA_AI_API_KEY_FILE": "f", "AGENTA_AI_API_KEY": "k"}
    async with process("dev", "--listen", "127.0.0.1:0", "--", sys.executable, "-c", script, **callers) as started:
        code, out, _ = await output(started)
    assert code == 0
    assert set(out.split()) & {*callers, "AGENTA_AI_TARGET"} == {"AGENTA_AI_API_KEY", "AGENTA_AI_TARGET"}


async def test_dev_warns_of_a_setting_that_there_is_not() -> None:
    async with process("dev", "--listen", "127.0.0.1:0", "--", "true", AGENTA_AI_GRPC_LIMIT="off") as started:
        code, _, err = await output(started)
    assert code == 0
    assert "AGENTA_AI_GRPC_LIMIT" in err


async def test_dev_prints_lines_to_paste() -> None:
    async with process("dev", "--listen", "127.0.0.1:0", **environment()) as started:
        assert started.stdout
        lines = []
        async for line in started.stdout:
            lines.append(line.decode())
            if "Ctrl-C" in lines[-1]:
                break
        started.send_signal(signal.SIGINT)
        assert await started.wait() == 0
    text = "".join(lines)
    assert re.search(r"^  export AGENTA_AI_API_KEY=aai_\w+_\w+$", text, re.MULTILINE)
    assert 'grpcurl -plaintext -H "authorization: ApiKey $AGENTA_AI_API_KEY" 127.0.0.1:' in text
    assert "from agenta_ai import SyncClient" in text


async def test_dev_says_which_command_it_cannot_run() -> None:
    async with process("dev", "--", "no-such-command", **environment()) as started:
        code, _, err = await output(started)
    assert code == 2
    assert err.splitlines()[1:] == ["  COMMAND: can't run no-such-command: No such file or directory."]


async def test_dev_refuses_words_that_it_does_not_know() -> None:
    async with process("dev", "--fault", "explode=yes", **environment()) as started:
        code, _, err = await output(started)
    assert code == 2
    assert "--fault: " in err
    assert "explode" in err


@pytest.mark.parametrize("url", ["redis://user:s3cret#word@host:6379/0", "redis://user:s3cret/word@host:6379"])
async def test_a_wrong_address_of_redis_is_told_once_and_without_its_password(url: str) -> None:
    async with process("serve", **environment(AGENTA_AI_GRPC_REDIS_URL=url, AGENTA_AI_GRPC_LIMITS="off")) as started:
        code, _, err = await output(started)
    assert code == 2
    assert [line for line in err.splitlines() if "REDIS_URL" in line] == [
        "  AGENTA_AI_GRPC_REDIS_URL: must be redis://host:port/number of the database, rediss://… for TLS, or unix:///path."
    ]
    assert "s3cret" not in err


async def test_a_reader_of_the_log_that_stands_still_holds_up_no_call(standin: StandIn) -> None:
    async with process("serve", **environment(standin)) as started:
        async with grpc.aio.insecure_channel(await address_of(started)) as channel:
            stub = ToolServiceStub(channel)
            # From now on nobody reads. The lines fill this process's buffer and the pipe several times over.
            async with asyncio.timeout(30):
                for _ in range(40):
                    await asyncio.gather(*(stub.Status(pb.StatusRequest()) for _ in range(50)))
        started.terminate()
        async with asyncio.timeout(30):
            # Its wait() would wait for the end of the pipe, too.
            while started.returncode is None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert started.returncode == 0
        _, _, errors = await output(started)
    lines = errors.splitlines()
    assert 500 < len([line for line in lines if "call ended" in line]) <= 2000


async def test_it_runs_without_standard_error(standin: StandIn, tmp_path: Path) -> None:
    socket = f"unix:{tmp_path / 'socket'}"
    program = [sys.executable, "-c", "import sys; from agenta_ai_server.cli import main; sys.exit(main())", "serve"]
    started = await asyncio.create_subprocess_exec(
        "sh", "-c", 'exec "$@" 2>&-', "sh", *program, env=environment(standin, AGENTA_AI_GRPC_LISTEN=socket)
    )
    try:
        async with grpc.aio.insecure_channel(socket) as channel:
            await ToolServiceStub(channel).Status(pb.StatusRequest(), wait_for_ready=True, timeout=30)
    finally:
        started.terminate()
        code = await started.wait()
    assert code == 0
