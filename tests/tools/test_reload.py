"""A tools file that changes while the service runs: as a whole or not at all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.request import urlopen

import grpc
import pytest
from addresses import free_address
from calls import REFINE, request, structured
from conftest import connected, settings_for

from agenta_ai.v1 import tool_service_pb2
from agenta_ai_server.assembly import tools as assembled_tools
from agenta_ai_server.files.reloading import ReloadingDocument
from agenta_ai_server.settings import SettingsError
from agenta_ai_server.tools.tools_file import following

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub
    from agenta_ai_server.standin.app import StandIn

    Write = Callable[[str], Path]

ONE, TWO = "tools.acme.a.one", "tools.acme.a.two"


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.02)


def version(letter: str) -> str:
    """A file in which both tools take one argument, which has the version's name, and result in it."""
    return "".join(
        f"""
[tools."{name}"]
application = "{name.rpartition(".")[2]}-{letter}"
description = "{letter}"
arguments = {{ type = "object", additionalProperties = false, properties = {{ {letter} = {{ type = "string" }} }} }}
result = {{ type = "object", required = ["{letter}"], properties = {{ {letter} = {{ const = "{letter}" }} }} }}
"""
        for name in (ONE, TWO)
    )


def replace(path: Path, text: str) -> None:
    """Change a file at once: one that is written in place is empty for a moment, which is valid here."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


async def described(stub: ToolServiceAsyncStub) -> dict[str, str]:
    listed = await stub.ListTools(tool_service_pb2.ListToolsRequest())
    return {tool.name: tool.description for tool in listed.tools if tool.name != REFINE}


async def eventually(look: Callable[[], Awaitable[object]], expected: object) -> None:
    found = await look()
    while found != expected:
        await asyncio.sleep(0.01)
        found = await look()


async def title_of_result(stub: ToolServiceAsyncStub) -> object:
    listed = await stub.ListTools(tool_service_pb2.ListToolsRequest())
    return listed.tools[0].output_schema["title"]


async def test_no_call_sees_half_of_a_set(standin: StandIn, write: Write) -> None:
    for letter in "bca":
        # All prompts stay deployed, as in Agenta.
        path = write(version(letter))
    ended = 0
    done = asyncio.Event()

    async def caller(stub: ToolServiceAsyncStub) -> None:
        nonlocal ended
        while not done.is_set():
            seen = set((await described(stub)).values())
            assert len(seen) == 1, "a list never mixes two versions"
            (letter,) = seen
            for name in (ONE, TWO):
                call = stub.CallTool(request({letter: "x"}, name=name))
                # If the set has changed since it was listed, the argument is unknown.
                assert await call.code() in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT)
                if await call.code() is grpc.StatusCode.OK:
                    assert structured(await call) == {letter: letter}, "arguments, prompt and result of one version"
                    ended += 1

    async with connected(settings_for(standin, AGENTA_AI_GRPC_TOOLS_FILE=str(path))) as stub:
        callers = [asyncio.create_task(caller(stub)) for _ in range(10)]
        for letter in "bca" * 4:
            replace(path, version(letter))
            await eventually(lambda: described(stub), {ONE: letter, TWO: letter})
        while ended <= 20:
            await asyncio.wait(callers, timeout=0.1)
            assert not any(each.done() for each in callers)
        done.set()
        await asyncio.gather(*callers)


async def test_a_bug_in_one_change_does_not_keep_out_the_next(
    standin: StandIn, write: Write, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(version("a"))
    async with connected(settings_for(standin, AGENTA_AI_GRPC_TOOLS_FILE=str(path))) as stub:
        with monkeypatch.context() as patched:
            patched.setattr(assembled_tools, "tool_set", None)
            replace(path, version("b"))
            async with asyncio.timeout(30):
                while "aren't used because of a bug: TypeError" not in caplog.text:
                    assert await described(stub) == {ONE: "a", TWO: "a"}
        replace(path, version("c"))
        await eventually(lambda: described(stub), {ONE: "c", TWO: "c"})


async def test_a_running_call_keeps_its_set(standin: StandIn, write: Write) -> None:
    path = write(version("a"))
    release = asyncio.Event()

    async def wait(_: object) -> None:
        await release.wait()

    standin.respond = wait
    async with connected(settings_for(standin, AGENTA_AI_GRPC_TOOLS_FILE=str(path))) as stub:
        call = asyncio.ensure_future(stub.CallTool(request({"a": "x"}, name=ONE)))
        await standin.when(lambda: standin.in_flight == 1)
        replace(path, "")
        await eventually(lambda: described(stub), {})
        release.set()
        assert structured(await call) == {"a": "a"}
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.CallTool(request({"a": "x"}, name=ONE))
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_broken_file_leaves_the_old_tools_in_effect(standin: StandIn, write: Write, logged: list[str]) -> None:
    address = free_address()
    path = write(version("a"))
    settings = settings_for(standin, AGENTA_AI_GRPC_TOOLS_FILE=str(path), AGENTA_AI_GRPC_METRICS_LISTEN=address)

    async def exported() -> list[str]:
        def get() -> str:
            with urlopen(f"http://{address}/metrics", timeout=10) as answer:
                return str(answer.read().decode())

        lines = (await asyncio.to_thread(get)).splitlines()
        return [line for line in lines if line.startswith("agenta_ai_tools")]

    async with connected(settings) as stub:
        assert await exported() == ["agenta_ai_tools 3.0", "agenta_ai_tools_file_broken 0.0"]
        replace(path, version("b") + "x = 1\ny = 2")
        await eventually(exported, ["agenta_ai_tools 3.0", "agenta_ai_tools_file_broken 1.0"])
        assert await described(stub) == {ONE: "a", TWO: "a"}
        replace(path, version("b"))
        await eventually(lambda: described(stub), {ONE: "b", TWO: "b"})
        assert (await exported())[1] == "agenta_ai_tools_file_broken 0.0"
    (told,) = [line for line in logged if "stays in effect" in line]
    assert "tools.acme.a.two.x: there is no such key" in told
    assert "tools.acme.a.two.y: there is no such key" in told


async def test_a_schema_beside_it_is_part_of_it(standin: StandIn, tmp_path: Path) -> None:
    path, beside = tmp_path / "tools.toml", tmp_path / "schemas" / "result.json"
    beside.parent.mkdir()
    beside.write_text('{"title": "old"}')
    path.write_text(
        f'[tools."{ONE}"]\napplication = "one"\ndescription = "d"\nresult = {{ file = "schemas/result.json" }}'
    )
    async with connected(settings_for(standin, AGENTA_AI_GRPC_TOOLS_FILE=str(path))) as stub:
        for text, title in [('{"title": "new"}', "new"), ('{"title": ', "new"), ('{"title": "newest"}', "newest")]:
            beside.write_text(text)
            await eventually(lambda: title_of_result(stub), title)


def test_files_that_one_names_count_as_part_of_it(tmp_path: Path) -> None:
    main, first, second = (tmp_path / name for name in ("main", "first", "second"))
    main.write_text("first")
    first.write_text("1")
    second.write_text("2")
    now = [0.0]
    read: list[str] = []

    def parse(content: bytes, read_beside: Callable[[Path], bytes]) -> str:
        read.append(content.decode())
        return read_beside(tmp_path / content.decode()).decode()

    file = ReloadingDocument(main, parse, patience=30, clock=lambda: now[0])
    expected: list[tuple[Callable[[], object], str, int]] = [
        (lambda: None, "1", 1),
        (lambda: first.write_text("one"), "one", 2),
        (lambda: second.write_text("two"), "one", 2),
        (lambda: first.unlink(), "one", 3),
        (lambda: first.write_text("uno"), "uno", 4),
        (lambda: main.write_text("second"), "two", 5),
        (lambda: first.write_text("ignored"), "two", 5),
        (lambda: None, "two", 5),
    ]
    for change, content, readings in expected:
        change()
        now[0] += 1
        assert (file.content, len(read)) == (content, readings)


async def test_all_faults_at_the_start(standin: StandIn, tmp_path: Path) -> None:
    path = tmp_path / "tools.toml"
    path.write_text(f'[tools."{ONE}"]\nx = 1\n[tools."{REFINE}"]\napplication = "a"\ndescription = "d"\n')
    settings = settings_for(
        standin, AGENTA_AI_GRPC_TOOLS_FILE=str(path), AGENTA_AI_GRPC_LIMITS="on", AGENTA_AI_GRPC_LIMITS_FILE="gone.toml"
    )
    with pytest.raises(SettingsError) as error:
        async with connected(settings):
            pass
    tools, limits = error.value.faults
    assert tools.startswith(f"AGENTA_AI_GRPC_TOOLS_FILE: {path}: The file has errors:\n")
    for fault in (
        "line 1: tools.acme.a.one.application: Field required",
        "line 2: tools.acme.a.one.x: there",
        "line 3",
    ):
        assert f"\n    {fault}" in tools
    assert limits.startswith("AGENTA_AI_GRPC_LIMITS_FILE: can't read gone.toml")


async def test_limits_may_name_a_tool_before_it_is_there(
    standin: StandIn, write: Write, tmp_path: Path, logged: list[str]
) -> None:
    path, limits, new = write(version("a")), tmp_path / "limits.toml", "tools.acme.a.new"
    limits.write_text("unlimited = true\n")
    settings = settings_for(
        standin,
        AGENTA_AI_GRPC_TOOLS_FILE=str(path),
        AGENTA_AI_GRPC_LIMITS="on",
        AGENTA_AI_GRPC_LIMITS_FILE=str(limits),
    )

    async def call(name: str) -> grpc.StatusCode:
        return await stub.CallTool(request({"a": "x"}, name=name)).code()

    async def is_limited() -> bool:
        return await call(new) is grpc.StatusCode.RESOURCE_EXHAUSTED

    async with connected(settings) as stub:
        replace(limits, f'unlimited = true\n[tools."{new}"]\nburst = 1\nper_minute = 1\n')
        while not any("there is no tool 'tools.acme.a.new'" in line for line in logged):
            assert await call(ONE) is grpc.StatusCode.OK
        write(version("a").replace(TWO, new))
        await eventually(is_limited, True)


async def test_limits_may_name_the_tools_of_the_file(standin: StandIn, write: Write, tmp_path: Path) -> None:
    path, limits = write(version("a")), tmp_path / "limits.toml"
    limits.write_text(f'unlimited = true\n[tools."{ONE}"]\nburst = 1\nper_minute = 1\n')
    more = {
        "AGENTA_AI_GRPC_TOOLS_FILE": str(path),
        "AGENTA_AI_GRPC_LIMITS": "on",
        "AGENTA_AI_GRPC_LIMITS_FILE": str(limits),
    }
    async with connected(settings_for(standin, **more)) as stub:
        for name in (ONE, TWO, TWO):
            await stub.CallTool(request({"a": "x"}, name=name))
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.CallTool(request({"a": "x"}, name=ONE))
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
