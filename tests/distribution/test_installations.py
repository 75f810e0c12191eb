"""What is installed works, away from the repository."""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import SLOW
from distribution.conftest import BIN, ENVIRONMENT, ROOT

from agenta_ai import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from distribution.conftest import Installation

NEEDED = {"agenta-ai", "googleapis-common-protos", "grpcio", "grpcio-status", "protobuf", "typing-extensions"}
REFINE = ("refine", str(ROOT / "examples/support_agent.json"), "-g", "Be brief")
CALLER = Path(__file__).with_name("caller.py")


async def test_the_client_alone(install: Callable[..., Installation], address: str) -> None:
    installed = install()
    assert "Client" in installed.python("from agenta_ai import Client; print(Client.__name__)")
    assert installed.run("agenta-ai", "--version") == f"agenta-ai {__version__}\n"
    assert "usage: agenta-ai " in installed.run("agenta-ai", "--help")
    status = await asyncio.to_thread(installed.run, "agenta-ai", "--target", address, "status")
    assert f"serving, version {__version__}" in status
    names = installed.python("import importlib.metadata as m; print(*{d.name for d in m.distributions()})")
    assert {name.replace("_", "-") for name in names} <= NEEDED
    # The server's command is there, and says what is missing.
    assert "usage: agenta-ai-server " in installed.run("agenta-ai-server", "--help")
    for command in ("serve", "check"):
        said = installed.run("agenta-ai-server", command, code=2)
        assert re.fullmatch(r"agenta-ai-server needs \w+\. Install the extra 'server': .*\n", said)


async def test_the_command_line(install: Callable[..., Installation], address: str) -> None:
    installed = install("[cli]")
    refined = await asyncio.to_thread(installed.run, "agenta-ai", "--target", address, *REFINE)
    assert "+Guidelines: Be brief." in refined
    assert installed.python("import rich; print(rich.__name__)") == ["rich"]


def test_the_server(install: Callable[..., Installation]) -> None:
    installed = install("[server]")
    refined = installed.run("agenta-ai-server", "dev", "--listen", "127.0.0.1:0", "--", "agenta-ai", *REFINE)
    assert "+Guidelines: Be brief." in refined
    assert str(installed.bin.parent) in installed.python("import agenta_ai_server as s; print(s.__file__)")[0]


def test_a_typed_caller(install: Callable[..., Installation], tmp_path: Path) -> None:
    installed = install("", "types-grpcio", "types-protobuf")
    caller = tmp_path / "caller.py"
    caller.write_text(CALLER.read_text())
    done = subprocess.run(
        [BIN / "mypy", "--strict", "--config-file=", "--python-executable", installed.bin / "python", caller],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.findall(r"^caller\.py:(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.MULTILINE)
    lines = enumerate(CALLER.read_text().splitlines(), 1)
    planted = [(str(number), line.rpartition("# error: ")[2]) for number, line in lines if "# error: " in line]
    assert found == planted, done.stdout


@pytest.mark.skipif(not SLOW, reason="300 MB for one test: make test-slow")
def test_beside_the_sdk(install: Callable[..., Installation]) -> None:
    installed = install("", "agenta")
    program = """
import os
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "true"  # or the SDK fetches a list of prices
import agenta, agenta_ai, agenta_ai.v1.tool_service_pb2_grpc
from agenta_ai.v1.tool_service_pb2 import CallToolRequest
assert CallToolRequest.FromString(CallToolRequest(name="x").SerializeToString()).name == "x"
print("FILES", agenta.__file__, agenta_ai.__file__)
"""
    printed = installed.run("python", "-c", program)
    sdk, ours = re.findall(r"^FILES (\S+) (\S+)$", printed, re.MULTILINE)[0]
    assert sdk.endswith("/site-packages/agenta/__init__.py")
    assert ours.endswith("/site-packages/agenta_ai/__init__.py")
