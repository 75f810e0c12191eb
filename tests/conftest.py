"""What all tests share: a service with its stand-in on real ports, and the programs that some tests need."""

from __future__ import annotations

import gc
import logging
import math
import os
import shutil
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc.aio
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis
from hypothesis.strategies import none
from redis_server import RedisServer

from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceStub
from agenta_ai_server.commands import serve
from agenta_ai_server.concurrency.pacing import PacedWork
from agenta_ai_server.domain.call import ANONYMOUS, Call
from agenta_ai_server.settings import load
from agenta_ai_server.standin.app import StandIn
from agenta_ai_server.testing import environment_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Hashable, Iterator
    from pathlib import Path
    from typing import Any

    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub
    from agenta_ai_server.settings import Settings

PROGRAMS = {
    "promtool": "apt-get install prometheus",
    "kustomize": "go install sigs.k8s.io/kustomize/kustomize/v5@v5.6.0",
    "helm": "go install helm.sh/helm/v3/cmd/helm@v3.19.4",
    "systemd-analyze": "apt-get install systemd",
    "go": "https://go.dev/doc/install, 1.26 or newer",
    "npm": "https://nodejs.org, 20.19 or newer",
    "mvn": "https://maven.apache.org, 3.8 or newer, with Java 17 or newer",
    "cargo": "https://rustup.rs, Rust 1.89 or newer",
    "redis-server": "apt-get install redis-server",
    "ghz": "go install github.com/bojand/ghz/cmd/ghz@v0.121.0",
    "grpcurl": "go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3",
}

# Whether there is time for what takes minutes, by "make test-slow"; else the same tests have smaller numbers.
SLOW = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"

# Seconds in which a changed file is noticed. A service looks once a second, but a busy machine may stand still.
SOON = 8

# Before any test is imported. What is off here depends on how busy the machine is, or on the seed.
UNHURRIED = hypothesis(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
hypothesis.register_profile("quick", UNHURRIED, max_examples=60, database=None)
hypothesis.register_profile("thorough", UNHURRIED, max_examples=20_000)
hypothesis.load_profile("thorough" if SLOW else "quick")

# When grpc frees a server that never started, it logs the server itself at DEBUG. A kept record, as caplog keeps them,
# then crashes the process when it is freed: see AioServer.__dealloc__ in https://github.com/grpc/grpc.
logging.getLogger("grpc._cython.cygrpc").setLevel(logging.INFO)

# Our own key in Agenta, and what the prompts of the tests say.
PRIVATE = ("standin-key", "You are a helpful assistant.", "Extract entities from")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--live", action="store_true", help="run the tests that ask a real Agenta")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if collection_path.name == "live" and not config.getoption("--live") else None


def pytest_collection_finish() -> None:
    # When it first runs, Hypothesis looks for what refers to its random numbers, and doesn't find what is frozen.
    given(none())(lambda _: None)()
    # What is loaded by now stays. Every collection of garbage would look through it again.
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for marker in item.iter_markers("needs"):
            program = marker.args[0]
            if shutil.which(program) is None and not os.environ.get("CI"):
                item.add_marker(pytest.mark.skip(reason=f"{program} is missing; get it by: {PROGRAMS[program]}"))


_SETUP_SECONDS = pytest.StashKey[float]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "setup":
        item.stash[_SETUP_SECONDS] = call.duration
    elif report.when == "call" and report.passed:
        # A task that runs when the time is up keeps the exception that is to end the test.
        took = item.stash[_SETUP_SECONDS] + call.duration
        # The time begins a little before the setup.
        if took > 0.99 * _timeout_of(item):
            report.outcome = "failed"
            report.longrepr = "The test took too long, and a task kept the exception that says so."
    return report


def _timeout_of(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    # 0 is without end.
    return float(marker.args[0] if marker else item.config.getini("timeout")) or math.inf


class _Written(logging.Handler):
    """Keeps what is logged, as it would be written."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What has been logged so far."""
    written = _Written()
    root, ours = logging.getLogger(), logging.getLogger("agenta_ai_server")
    level = ours.level
    root.addHandler(written)
    yield written.lines
    root.removeHandler(written)
    # A command that ran in this process has set it.
    ours.setLevel(level)


@pytest.fixture(autouse=True)
def nothing_private_is_logged(logged: list[str]) -> Iterator[None]:
    """No test's server may log a prompt's text or a key, whatever goes wrong in it."""
    yield
    text = "\n".join(logged)
    assert not [private for private in PRIVATE if private in text]


@pytest.fixture(autouse=True)
def no_exporter_outlives_its_test() -> Iterator[None]:
    """A service that stops doesn't wait for a collector that is gone; the exporter goes on for a while."""
    yield
    for thread in threading.enumerate():
        if thread.name in ("flush-spans", "OtelBatchSpanRecordProcessor"):
            thread.join(30)


def settings_for(standin: StandIn, **overrides: str) -> Settings:
    """The settings of a service on a free port in front of ``standin``; an override of "" removes one."""
    settings, warnings = load(environment_for(standin) | overrides)
    assert not warnings
    return settings


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[ToolServiceAsyncStub]:
    """A service by these settings, and a generated client that is connected to it."""
    async with serve.running(settings) as address, grpc.aio.insecure_channel(address) as channel:
        yield ToolServiceStub(channel)


@pytest.fixture
async def standin() -> AsyncIterator[StandIn]:
    async with StandIn() as standin:
        yield standin


@pytest.fixture
async def address(standin: StandIn) -> AsyncIterator[str]:
    async with serve.running(settings_for(standin)) as address:
        yield address


@pytest.fixture
async def stub(address: str) -> AsyncIterator[ToolServiceAsyncStub]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield ToolServiceStub(channel)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of this test."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def make_call() -> Callable[[], Call]:
    """Makes calls as the boundary does, for what is tested without a wire."""

    def make() -> Call:
        return Call(
            id="0" * 32, method="/agenta.ai.v1.ToolService/CallTool", metadata=(), peer="test",
            principal=ANONYMOUS,
        )  # fmt: skip

    return make


@pytest.fixture
def paced(monkeypatch: pytest.MonkeyPatch) -> list[Hashable]:
    """The callers whose work has been done in turns."""
    callers = []
    run = PacedWork.run

    async def noted(work: PacedWork, caller: Hashable, steps: Generator[None, None, Any]) -> Any:
        callers.append(caller)
        return await run(work, caller, steps)

    monkeypatch.setattr(PacedWork, "run", noted)
    return callers
