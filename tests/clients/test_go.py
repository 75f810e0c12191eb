"""The Go client against the real server: what it decodes, and how long it waits for a limit, as Python's gRPC does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from calls import TEMPLATE, refine, trailers
from clients.conftest import assert_refined, run
from conftest import settings_for

from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceStub
from agenta_ai_server.auth.key_file import create_key
from agenta_ai_server.commands import serve

if TYPE_CHECKING:
    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub
    from agenta_ai_server.settings import Settings
    from agenta_ai_server.standin.app import StandIn

# For the first build, on a machine that has built nothing yet.
pytestmark = [pytest.mark.needs("go"), pytest.mark.timeout(600)]

MODULE = Path(__file__).parents[2] / "clients/go"
ARGUMENTS = {"prompt_template_json": json.dumps(TEMPLATE)}


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs, as the sources make them and with the dependencies that are pinned."""
    folder = tmp_path_factory.mktemp("go")
    go = shutil.which("go")
    assert go
    built = subprocess.run(
        [go, "build", "-buildvcs=false", "-o", f"{folder}/", "./example", "./internal/probe"],
        cwd=MODULE, env={**os.environ, "GOFLAGS": "-mod=readonly"}, capture_output=True, text=True,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    return folder


class Probe:
    """Calls a tool from Go, and tells what came of it."""

    def __init__(self, programs: Path) -> None:
        self._program = programs / "probe"

    async def __call__(
        self, target: str, *flags: str, arguments: dict[str, str] = ARGUMENTS, key: str = ""
    ) -> list[dict[str, Any]]:
        code, out, err = await run(
            self._program, "-target", target, "-arguments", json.dumps(arguments), *flags, AGENTA_AI_API_KEY=key
        )
        assert code == 0, err
        return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def probe(programs: Path) -> Probe:
    return Probe(programs)


@pytest.fixture
def limited(standin: StandIn, tmp_path: Path) -> Settings:
    """One call every two seconds."""
    return with_limit(standin, tmp_path, per_minute=30)


@pytest.fixture
def scarce(standin: StandIn, tmp_path: Path) -> Settings:
    """One call each minute."""
    return with_limit(standin, tmp_path, per_minute=1)


def with_limit(standin: StandIn, folder: Path, per_minute: int, burst: int = 1) -> Settings:
    path = folder / "limits.toml"
    path.write_text(f"burst = {burst}\nper_minute = {per_minute}\n")
    return settings_for(standin, AGENTA_AI_GRPC_LIMITS="on", AGENTA_AI_GRPC_LIMITS_FILE=str(path))


def pushbacks(outcome: dict[str, Any]) -> list[list[str]]:
    """What the server said with each attempt of a call about sending it again."""
    return [trailers.get("grpc-retry-pushback-ms", []) for trailers in outcome["Attempts"]]


async def test_the_example(programs: Path, address: str) -> None:
    code, out, err = await run(programs / "example", AGENTA_AI_TARGET=address)
    assert (code, err) == (0, "")
    assert_refined(out)


def test_the_readme_has_the_example() -> None:
    source = (MODULE / "example/main.go").read_text()
    assert f"```go\n{source}```\n" in (MODULE / "README.md").read_text()


def test_the_readme_has_the_example_of_progress() -> None:
    """It is a part of one that "go test" runs."""
    (block,) = re.findall(r"```go\n(\t[^`]*WithProgress[^`]*)```", (MODULE / "README.md").read_text())
    assert block in (MODULE / "agentaai/example_test.go").read_text()


def test_the_module_can_be_used_by_others(tmp_path: Path) -> None:
    """What a tag would hold is a module of its own: a license, and all that its packages need."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=MODULE, capture_output=True, text=True, check=True).stdout
    module, consumer = tmp_path / "module", tmp_path / "consumer"
    for name in filter(None, listed.split("\0")):
        target = module / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(MODULE / name, target)
    assert {"LICENSE", "README.md", "CHANGELOG.md", "go.mod"} <= {path.name for path in module.iterdir()}
    consumer.mkdir()
    shutil.copy(MODULE / "example/main.go", consumer)
    path = "github.com/Agenta-AI/agenta-ai-grpc/clients/go"
    for command in (
        ["mod", "init", "example.com/consumer"],
        ["mod", "edit", f"-require={path}@v0.1.0", f"-replace={path}={module}"],
        ["build", "-mod=mod", "-o", "consumer", "."],
    ):
        made = subprocess.run(["go", *command], cwd=consumer, capture_output=True, text=True)
        assert made.returncode == 0, made.stderr


async def test_structured_content(probe: Probe, address: str) -> None:
    (outcome,) = await probe(address)
    assert "Error" not in outcome
    refined = json.loads(outcome["Result"]["prompt_template_json"])
    assert [message["role"] for message in refined["messages"]] == ["system", "user"]
    assert "{{input_text}}" in refined["messages"][1]["content"]


async def test_wrong_arguments_are_named(probe: Probe, address: str) -> None:
    (outcome,) = await probe(address, arguments={"prompt_template_json": "7", "guidlines": "Be brief."})
    refused = outcome["Refused"]
    assert (refused["Code"], outcome["Reason"]) == (3, "ERROR_REASON_ARGUMENTS_INVALID")
    assert refused["NotRun"] is True
    assert refused["CallID"]
    assert refused["RequestID"] != refused["CallID"]
    named = {violation["Field"] for violation in refused["FieldViolations"]}
    assert named
    assert all(field.startswith("arguments.") for field in named)
    assert all(violation["Description"] for violation in refused["FieldViolations"])


async def test_a_tool_that_is_not_there(probe: Probe, address: str) -> None:
    (outcome,) = await probe(address, "-tool", "tools.a.b.c")
    assert (outcome["Refused"]["Code"], outcome["Reason"]) == (5, "ERROR_REASON_TOOL_NOT_FOUND")


async def test_a_tool_that_fails(probe: Probe, address: str) -> None:
    (outcome,) = await probe(address, arguments={**ARGUMENTS, "guidelines": "standin: status=503 retry-after=2"})
    assert "Refused" not in outcome
    failed = outcome["Failed"]
    assert outcome["Reason"] == "ERROR_REASON_UPSTREAM_UNAVAILABLE"
    assert failed["Retryable"] is True
    assert failed["RetryDelay"] == 2e9
    assert failed["Message"]


async def test_who_calls(probe: Probe, standin: StandIn, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    key = create_key(keys, user="u", organization="o", project="p", permissions=["edit_workflows"], expires=None)
    settings = settings_for(standin, AGENTA_AI_GRPC_AUTH="api_keys", AGENTA_AI_GRPC_API_KEYS_FILE=str(keys))
    async with serve.running(settings) as address:
        (anonymous,) = await probe(address)
        (wrong,) = await probe(address, key=f"{key[:-4]}0000")
        (right,) = await probe(address, key=key)
    for outcome in anonymous, wrong:
        assert (outcome["Refused"]["Code"], outcome["Reason"]) == (16, "ERROR_REASON_CREDENTIALS_INVALID")
        assert outcome["Refused"]["NotRun"] is True
    assert "Error" not in right


async def test_a_limit_is_told_at_once(probe: Probe, scarce: Settings, standin: StandIn) -> None:
    async with serve.running(scarce) as address:
        first, second = await probe(address, "-calls", "2", "-timeout", "300s")
    assert "Error" not in first
    refused = second["Refused"]
    assert (refused["Code"], second["Reason"]) == (8, "ERROR_REASON_RATE_LIMITED")
    assert refused["NotRun"] is True
    assert 40e9 < refused["RetryDelay"] <= 60e9
    assert refused["QuotaViolations"][0]["quota_id"] == "default"
    ((pushback,),) = pushbacks(second)
    assert abs(int(pushback) - refused["RetryDelay"] / 1e6) < 2
    assert second["Seconds"] < 10
    assert standin.started == 1


async def test_go_waits_as_long_as_it_is_told(probe: Probe, limited: Settings, standin: StandIn) -> None:
    async with serve.running(limited) as address:
        first, second = await probe(address, "-calls", "2", "-wait")
    assert "Error" not in first
    assert "Error" not in second
    # Refused once, and let in after as long as the server said, plus at most half of that.
    (pushback,), *admitted = pushbacks(second)
    assert admitted == [[]]
    told, waited = int(pushback) / 1000, second["Seconds"]
    assert told <= waited < 1.5 * told + 2.5
    # The call that was let in first counts from some moment of its own.
    assert first["Seconds"] + waited >= 1.99
    assert standin.started == 2


async def test_go_does_not_wait_in_vain(probe: Probe, scarce: Settings) -> None:
    async with serve.running(scarce) as address:
        _, second = await probe(address, "-calls", "2", "-wait", "-timeout", "20s")
    assert (second["Refused"]["Code"], second["Reason"]) == (8, "ERROR_REASON_RATE_LIMITED")
    assert pushbacks(second) == [["-1"]]
    assert second["Seconds"] < 10


async def test_many_calls_wait_for_one_limit(probe: Probe, standin: StandIn, tmp_path: Path) -> None:
    settings = with_limit(standin, tmp_path, per_minute=600, burst=10)
    async with serve.running(settings) as address:
        outcomes = await probe(address, "-calls", "45", "-together", "-wait", "-timeout", "60s")
    assert len(outcomes) == 45
    assert not [outcome["Error"] for outcome in outcomes if "Error" in outcome]
    assert standin.started == 45


async def test_nobody_listens(probe: Probe, nobody: str) -> None:
    (outcome,) = await probe(nobody)
    assert outcome["Refused"]["NotRun"] is True
    assert outcome["Refused"]["RequestID"]
    assert "connection refused" in outcome["Error"]
    assert outcome["Error"].endswith("Nothing was sent, so the tool was not run.")


def waiting(address: str) -> grpc.aio.Channel:
    """A channel of gRPC itself that would give up after half a second, unless it obeys."""
    policy = {
        "maxAttempts": 5,
        "initialBackoff": "0.1s",
        "maxBackoff": "0.1s",
        "backoffMultiplier": 1,
        "retryableStatusCodes": ["RESOURCE_EXHAUSTED"],
    }
    config = {"methodConfig": [{"name": [{"service": "agenta.ai.v1.ToolService"}], "retryPolicy": policy}]}
    return grpc.aio.insecure_channel(address, [("grpc.service_config", json.dumps(config))])


async def timed(stub: ToolServiceAsyncStub) -> float:
    began = time.monotonic()
    response = await stub.CallTool(refine(), timeout=20)
    assert not response.is_error
    return time.monotonic() - began


async def test_python_waits_as_long_as_it_is_told(limited: Settings, standin: StandIn) -> None:
    async with serve.running(limited) as address, waiting(address) as channel:
        stub: ToolServiceAsyncStub = ToolServiceStub(channel)
        first, waited = await timed(stub), await timed(stub)
    # The call that was let in first counts from some moment of its own.
    assert first + waited >= 1.99
    assert waited < 4.5
    assert standin.started == 2


async def test_python_does_not_wait_in_vain(scarce: Settings) -> None:
    async with serve.running(scarce) as address, waiting(address) as channel:
        stub: ToolServiceAsyncStub = ToolServiceStub(channel)
        await stub.CallTool(refine())
        began = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.CallTool(refine(), timeout=20)
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert trailers(error.value)["grpc-retry-pushback-ms"] == "-1"
    assert time.monotonic() - began < 10
