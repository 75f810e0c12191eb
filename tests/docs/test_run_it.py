"""The first commands of the README's "Run it", as a new user types them, with the stand-in in place of Agenta."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from addresses import free_address
from docs.console import ROOT, commands

from agenta_ai_server.standin.app import StandIn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

URL, KEY = "https://cloud.agenta.ai", "AGENTA_API_KEY=…"


async def test_from_a_url_and_a_key_to_a_refined_prompt_in_a_few_commands(tmp_path: Path) -> None:
    section = (ROOT / "README.md").read_text("utf-8").partition("## Run it\n")[2]
    environment, install, export, provision, serve, again, refine = islice(commands(section), 7)
    assert environment.text.endswith(again.text)
    assert install.text == "pip install '.[server]'"
    assert refine.text.startswith("agenta-ai refine ")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    address = free_address()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AGENTA")}
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    own = {**kept, **path, "AGENTA_AI_GRPC_LISTEN": address, "AGENTA_AI_TARGET": address}
    async with StandIn(app="") as standin, asyncio.timeout(150):
        known = export.text.replace(URL, standin.url).replace(KEY, "AGENTA_API_KEY=standin-key")
        script = "\n".join([known, provision.text, serve.text])
        async with running(script, tmp_path, own) as server:
            assert server.stderr
            printed = []
            while "listening on" not in (line := (await server.stderr.readline()).decode()):
                printed.append(line)
            async with running(refine.text, tmp_path, own) as client:
                refined, complaint = await client.communicate()
    assert "".join(printed).startswith(provision.output)
    assert (client.returncode, complaint) == (0, b"")
    assert "+You are a support agent of {{company}}." in refined.decode()


@asynccontextmanager
async def running(script: str, folder: Path, environment: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        "bash", "-ec", script, cwd=folder, env=environment, start_new_session=True,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()
