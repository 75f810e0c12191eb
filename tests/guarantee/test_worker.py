"""The worker processes: what they can't do, and what becomes of a check when they fail."""

from __future__ import annotations

import asyncio
import json
import math
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
import psutil
import pytest
import uvloop
from calls import refine
from conftest import settings_for
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceStub
from agenta_ai_server.commands import serve
from agenta_ai_server.tools.refine_prompt.rendering.jinja import SANDBOX
from agenta_ai_server.tools.workers import pool
from agenta_ai_server.tools.workers.pool import LimitExceeded, WorkerFailed, Workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from agenta_ai_server.standin.app import StandIn

LOOP = "{% for i in range(9999) %}"
ENDLESS = f"{{% set l = [0] %}}{LOOP}{LOOP}{{% set _ = l.append(l) %}}{{% endfor %}}{{% endfor %}}"
HUNGRY = "{% set l = ['x'] %}{% for i in range(99) %}{% set _ = l.extend(l) %}{% endfor %}"


def request(old: str, new: str | None = None, *, fixed: Sequence[str] = (), name: str = "jinja2") -> dict[str, Any]:
    texts = {"template_format": name, "old": [old], "fixed": fixed}
    return {"task": "read templates", **texts} if new is None else {"task": "compare templates", "new": [new], **texts}


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may be given little of a busy machine."""
    monkeypatch.setattr(pool, "_SECONDS", 30.0)


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    workers = Workers()
    yield workers
    await workers.aclose()
    assert not processes()


def processes() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # it may be ending
            found += [child] if "workers.worker" in " ".join(child.cmdline()) else []
    return found


_ARGUMENTS = {
    "attr": "'x'", "batch": "2", "groupby": "'x'", "join": "','", "map": "'upper'", "rejectattr": "'x'",
    "replace": "'a', 'b'", "selectattr": "'x'", "slice": "2",
}  # fmt: skip


async def test_a_request_that_waits_is_not_encoded_yet(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded, begun = [], asyncio.Event()
    dumps = json.dumps

    def noted(value: object) -> str:
        encoded.append(value)
        begun.set()
        return dumps(value)

    monkeypatch.setattr(json, "dumps", noted)
    tasks = [asyncio.create_task(workers.ask(request("Hi {{ a }}"), "a")) for _ in range(3)]
    await begun.wait()
    assert len(encoded) == 1
    assert await asyncio.gather(*tasks) == [[]] * 3
    assert len(encoded) == 3


async def test_all_filters_work_where_no_file_can_be_opened(workers: Workers) -> None:
    """Some import a module when they are first used."""
    for name in sorted(SANDBOX.filters):
        answer = await workers.ask(request(f"x {{{{ '<b>a</b> &amp; b'|{name}({_ARGUMENTS.get(name, '')}) }}}}"), "a")
        assert "Errno" not in str(answer), name


async def test_the_path_of_a_file_that_is_not_loaded_is_not_shown(workers: Workers) -> None:
    answer = await workers.ask(request("Hi {{ a }}{{ 'x'.encode('idna') }}"), "a")
    assert "it needs a file, such as that of a rare codec" in str(answer)
    assert "/" not in str(answer)


async def test_a_process_has_nothing(workers: Workers) -> None:
    assert await workers.ask(request("Hi {{ a }}"), "a") == []
    (process,) = processes()
    assert process.environ() == {}
    assert process.cwd() == "/"
    assert set(os.listdir(f"/proc/{process.pid}/fd")) == {"0", "1", "2"}
    assert process.rlimit(resource.RLIMIT_NOFILE) == (0, 0)
    assert process.rlimit(resource.RLIMIT_FSIZE) == (0, 0)
    assert process.rlimit(resource.RLIMIT_CORE) == (0, 0)
    assert process.rlimit(resource.RLIMIT_NPROC) == (0, 0)
    assert process.rlimit(resource.RLIMIT_AS)[1] <= 100 * 2**20
    assert process.memory_info().rss < 40 * 2**20
    assert {"pydantic", "grpc"}.isdisjoint(os.path.basename(mapped.path) for mapped in process.memory_maps())


async def test_many_loops_over_objects_are_no_trouble(workers: Workers) -> None:
    loops = "".join(f"{{% for x in list{number} %}}{{{{ x.a }}}} {{{{ x.b }}}}{{% endfor %}}" for number in range(40))
    assert await workers.ask(request(loops, loops + "."), "a") == []


# Ways out of Jinja2's sandbox that once were, or that were looked for.
ESCAPES = [
    "{{ ''.__class__.__mro__ }}",
    "{{ a.__init__.__globals__ }}",
    "{{ ''|attr('__class__') }}",
    "{{ '{0.__class__}'.format(a) }}",
    "{{ ('{0.__class__}'|attr('format'))(a) }}",
    "{{ ['{0.__class__}']|map('format', a)|join }}",
    "{{ '{a.__class__}'.format_map({'a': a}) }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ lipsum.__globals__ }}",
    "{{ self.__class__ }}{{ self._TemplateReference__context }}",
    "{{ a._shape.__class__ }}{{ a._miss.__func__ }}",
    "{{ namespace.__init__ }}",
    "{{ range.__class__.__subclasses__() }}",
]


@pytest.mark.parametrize("escape", ESCAPES)
async def test_no_way_out(escape: str, workers: Workers) -> None:
    answer = await workers.ask(request(f"Hi {{{{ a }}}}{escape}", f"Hi {{{{ a }}}}{escape}"), "a")
    assert not any(word in str(answer) for word in ("<class", "<function", "<module"))
    assert await workers.ask(request("Hi {{ a }}"), "a") == []


@pytest.mark.parametrize("hostile", [ENDLESS, HUNGRY])
async def test_what_takes_too_much_is_stopped(hostile: str, workers: Workers) -> None:
    with pytest.raises(LimitExceeded):
        await workers.ask(request(hostile), "a")
    with pytest.raises(LimitExceeded):
        await workers.ask(request("Hi", hostile), "a")
    assert await workers.ask(request("Hi {{ a }}", "Hi"), "a") != []


async def stays_below(seconds: float, measure: Callable[[], Awaitable[float]]) -> None:
    """Measure three times at most, because a collection of garbage may fall into one of them."""
    for _ in range(3):
        if (took := await measure()) < seconds:
            break
    assert took < seconds


async def test_the_loop_goes_on_meanwhile(workers: Workers) -> None:
    async def longest_turn() -> float:
        await workers.ask(request("Hi"), "a")
        longest, cpu = 0.0, time.thread_time()
        check = asyncio.ensure_future(workers.ask(request(ENDLESS), "a"))
        while not check.done():
            await asyncio.sleep(0.001)
            longest, cpu = max(longest, time.thread_time() - cpu), time.thread_time()
        assert isinstance(check.exception(), LimitExceeded)
        return longest

    await stays_below(0.02, longest_turn)


async def test_the_limit_is_told_from_a_failure_however_soon_it_is_noticed(workers: Workers) -> None:
    """The signal is the one of the limit. What a process ended with must not be lost while its end is noticed."""
    for _ in range(5):
        checks = [asyncio.ensure_future(workers.ask(request(ENDLESS), key)) for key in "ab"]
        while not all(check.done() for check in checks):
            for process in processes():
                with suppress(psutil.Error):  # it has ended by itself
                    if process.cpu_times().user > 0.2:
                        process.send_signal(signal.SIGPROF)
            await asyncio.sleep(0.01)
        assert [type(check.exception()) for check in checks] == [LimitExceeded, LimitExceeded]


LIMITED = """
import agenta_ai_server.tools.workers.worker as worker
worker.MAX_ANSWER_BYTES = 60
worker.main()
"""


async def test_an_answer_that_is_too_long_is_no_failure_of_the_worker(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_COMMAND", (sys.executable, "-I", "-c", LIMITED))
    monkeypatch.setattr(pool, "_MAX_ANSWER_BYTES", 60)
    for _ in range(2):
        with pytest.raises(LimitExceeded, match="the description of what is wrong with it is too long"):
            await workers.ask(request("Hi {{ a }}", "Hi {{ b }}"), "a")
        assert await workers.ask(request("Hi {{ a }}", "Hello {{ a }}"), "a") == []
    assert len(processes()) == 1


async def test_one_that_is_killed_is_replaced(workers: Workers) -> None:
    await workers.ask(request("Hi"), "a")
    (process,) = processes()
    process.kill()
    assert await workers.ask(request("Hi {{ a }}", "Hi {{ a }}"), "a") == []


async def test_one_that_is_killed_during_a_check_is_replaced_once(workers: Workers) -> None:
    await workers.ask(request("Hi"), "a")

    async def killed(check: asyncio.Future[list[Any]]) -> None:
        seen: set[int] = set()
        while len(seen) < 2 and not check.done():
            for process in processes():
                if process.pid not in seen and process.cpu_times().user > 0.1:
                    seen.add(process.pid)
                    process.kill()
            await asyncio.sleep(0.005)

    check = asyncio.ensure_future(workers.ask(request(ENDLESS), "a"))
    await killed(check)
    with pytest.raises((WorkerFailed, LimitExceeded)):
        await check
    assert await workers.ask(request("Hi"), "a") == []


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("died_of", [signal.SIGSEGV, signal.SIGABRT])
def test_one_that_dies_when_it_is_started_is_replaced(
    died_of: signal.Signals, new_loop: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = asyncio.create_subprocess_exec
    codes: list[int] = []

    async def start_and_kill_the_first(*command: str, **options: Any) -> asyncio.subprocess.Process:
        process = await start(*command, **options)
        if not codes:
            process.send_signal(died_of)
            codes.append(await process.wait())
        return process

    async def ask() -> list[Any]:
        workers = Workers()
        try:
            return await workers.ask(request("Hi {{ a }}"), "a")
        finally:
            await workers.aclose()

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start_and_kill_the_first)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(ask()) == []
    assert codes == [-died_of]


async def test_one_that_is_stopped_is_replaced(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    await workers.ask(request("Hi"), "a")
    (process,) = processes()
    process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(pool, "_SECONDS", 0.5)
    with suppress(WorkerFailed):  # the second one was too slow as well, on a busy machine
        await workers.ask(request("Hi"), "a")
    monkeypatch.undo()
    assert not process.is_running()
    assert await workers.ask(request("Hi {{ a }}", "Hi {{ a }}"), "a") == []


async def test_if_all_are_stopped_nothing_is_said_of_the_template(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer in time is a failure of ours, for which no model is asked again."""
    monkeypatch.setattr(pool, "_SECONDS", 0.0)
    with pytest.raises(WorkerFailed):
        await workers.ask(request("Hi"), "a")


async def test_without_file_descriptors_it_fails_and_never_passes(workers: Workers) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        while True:
            try:
                taken.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
        with pytest.raises(WorkerFailed):
            await workers.ask(request("Hi", "Hi"), "a")
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert await workers.ask(request("Hi", "Hi"), "a") == []


async def test_many_at_once_share_two_processes(workers: Workers) -> None:
    asked = [
        workers.ask(request("Hi {{ a }}", f"Hi{' {{ a }}' * (number % 2)}"), str(number % 7)) for number in range(50)
    ]
    answers = await asyncio.gather(*asked)
    assert [answer == [] for answer in answers] == [number % 2 == 1 for number in range(50)]
    assert len(processes()) == 2


async def test_a_key_has_one_turn_after_the_other(workers: Workers) -> None:
    """Ten hostile templates of one caller keep one process busy; the other one is there for everybody else."""
    await asyncio.gather(workers.ask(request("Hi"), "a"), workers.ask(request("Hi"), "b"))
    hostile = [asyncio.ensure_future(workers.ask(request(ENDLESS), "hostile")) for _ in range(10)]
    await asyncio.sleep(0.1)
    assert await workers.ask(request("Hi"), "somebody else") == []
    assert sum(check.done() for check in hostile) < 10
    await workers.aclose()
    assert all(isinstance(each, BaseException) for each in await asyncio.gather(*hostile, return_exceptions=True))


async def test_a_caller_that_leaves_does_not_mix_up_answers(workers: Workers) -> None:
    for _ in range(20):
        left = asyncio.ensure_future(workers.ask(request("Hi {{ a }}", "Hi"), "a"))
        await asyncio.sleep(0.002)
        left.cancel()
        assert await workers.ask(request("Hi {{ a }}", "Hi {{ a }}"), "b") == []
    assert await workers.ask(request("x" * 99_000 + "{{ a }}", "x" * 199_000 + "{{ a }}"), "a") == []


async def test_a_check_that_waits_ends_with_its_caller(workers: Workers) -> None:
    first = asyncio.ensure_future(workers.ask(request(ENDLESS), "a"))
    left = [asyncio.ensure_future(workers.ask(request(ENDLESS), "a")) for _ in range(20)]
    await asyncio.sleep(0)
    for each in left:
        each.cancel()
    assert all(isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*left, return_exceptions=True))
    with pytest.raises(LimitExceeded):
        await first
    cpu = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    assert await workers.ask(request("Hi"), "a") == []
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime == cpu  # none of the others ran


CONDITIONS = "{% if a %}{% endif %}{% if b %}{% endif %}{% if c %}{% endif %}"
# Takes about 40 ms.
SLOW = "{% for i in range(1000) %}{% for j in range(20) %}{% set x = i * j %}{% endfor %}{% endfor %}"


async def test_the_prompt_is_to_blame_if_it_is_too_slow(workers: Workers) -> None:
    """One rendering of it isn't, but as many as the check of an answer needs."""
    for old, fixed in ((CONDITIONS + SLOW, "Hi"), (CONDITIONS, SLOW)):
        with suppress(LimitExceeded):  # where even the estimate takes too long
            answer = await workers.ask(request(old, fixed=[fixed]), "a")
            assert [kind for _, kind, _ in answer] == ["complex"]


def long_lists(fields: int) -> str:
    """Lists in lists, of 25 elements each in the situation with the longest, and some situations before that one."""
    shown = "".join(f"{{{{ x.f{number} }}}} " for number in range(fields))
    asked = "{% if kind == 'a' %}A{% endif %}{% if tier == 'b' %}B{% endif %}{% if total > 5 %}{{ total }}{% endif %}"
    inner = f"{{% for x in each.inner %}}{shown}{{% endfor %}}{{% if each.inner|length > 23 %}}many{{% endif %}}"
    return f"{asked}{{% for each in outer %}}{inner}{{% endfor %}}{{% if outer|length > 23 %}}many{{% endif %}}"


@pytest.mark.parametrize("fields", [5, 20, 60])
async def test_an_answer_to_an_accepted_prompt_can_be_checked_in_time(fields: int, workers: Workers) -> None:
    """Otherwise, every answer would be billed and discarded."""
    text, accepted = long_lists(fields), False
    with suppress(LimitExceeded):  # where even one rendering takes too long
        accepted = await workers.ask(request(text), "a") == []
    if accepted:
        # A busy machine may be much slower now than it was then.
        for _ in range(3):
            with suppress(LimitExceeded):
                assert await workers.ask(request(text, f"{text}."), "a") == []
                break
        else:
            pytest.fail("it can't be checked in time")


@pytest.mark.parametrize(
    ("template_format", "text"),
    [
        ("jinja2", "{{ a }}" * 1_001),
        ("jinja2", "{##}" * 1_001),
        ("jinja2", "{{ [" + "a," * 49_000 + "] }}"),
        ("jinja2", "{{ {" + "1:a," * 24_000 + "} }}"),
        ("jinja2", "{{ '{' ~ " + "a~" * 49_000 + "a }}"),
        ("mustache", "{{a}}" * 1_001),
        ("mustache", "{{=| |=}}" + "|a|" * 33_000),
        ("mustache", "{{=| |=}}|=<< >>=|" + "<<&a>>" * 16_000),
    ],
)
async def test_what_is_too_complex_is_not_rendered(template_format: str, text: str, workers: Workers) -> None:
    answers = [
        await workers.ask(request(old, new, fixed=fixed, name=template_format), "a")
        for old, new, fixed in ((text, None, []), ("Hi", None, [text]), ("Hi", text, []))
    ]
    assert all("more than 1,000 tags" in description for ((_, _, description),) in answers)
    (process,) = processes()
    assert process.memory_info().rss < 60 * 2**20


async def test_health_is_answered_meanwhile(standin: StandIn) -> None:
    """Four hostile templates at once: whatever else this machine does, the service itself doesn't stand still."""
    async with serve.running(settings_for(standin)) as address, grpc.aio.insecure_channel(address) as channel:
        stub = ToolServiceStub(channel)
        health: Any = health_pb2_grpc.HealthStub(channel)
        template = {"messages": [{"role": "user", "content": "Hi"}], "template_format": "jinja2"}
        await stub.CallTool(refine(template))
        template["messages"] = [{"role": "user", "content": ENDLESS}]

        async def longest_check() -> float:
            calls = [asyncio.ensure_future(stub.CallTool(refine(template))) for _ in range(4)]
            answered, longest = 0, 0.0
            while not calls[0].done():
                # What it takes of the processor's time, since others may have the processor meanwhile.
                cpu = time.thread_time()
                await health.Check(health_pb2.HealthCheckRequest())
                longest = max(longest, time.thread_time() - cpu)
                answered += 1
            for failed in await asyncio.gather(*calls, return_exceptions=True):
                assert "can't be checked: it takes too much CPU time" in str(failed)
            return longest if answered > 10 else math.inf

        await stays_below(0.05, longest_check)
