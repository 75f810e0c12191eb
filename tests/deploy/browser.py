"""gRPC-Web: a page in a real Chromium calls through the real Envoy, as docs/browser.md shows.

For ``make deploy-check``, not for every run.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

import pytest
from aiohttp import web
from conftest import settings_for
from deploy.conftest import DEPLOY

from agenta_ai_server.auth.key_file import create_key
from agenta_ai_server.commands import serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from deploy.conftest import Start

    from agenta_ai_server.standin.app import StandIn

ROOT = DEPLOY.parent
PACKAGES = ROOT / ".tools/browser/node_modules"
ALLOWED = "https://agenta.example.com"
# Envoy's certificate is made by the test, and the sandbox needs rights that root in a container doesn't have.
CHROMIUM = [
    shutil.which("chromium") or "chromium",
    *("--headless", "--no-sandbox", "--disable-gpu", "--ignore-certificate-errors"),
]  # fmt: skip


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's script, in one file."""
    bundle = tmp_path_factory.mktemp("page") / "page.js"
    subprocess.run(
        [
            PACKAGES / ".bin/esbuild", ROOT / "tests/deploy/browser.ts", "--bundle", "--format=esm",
            "--log-level=warning", f"--outfile={bundle}", f"--alias:agenta-ai/v1={ROOT}/clients/typescript/src/v1.ts",
        ],
        env=os.environ | {"NODE_PATH": str(PACKAGES)}, check=True,
    )  # fmt: skip
    return bundle


class Page(NamedTuple):
    """A page on an origin of its own, and what its script reports."""

    origin: str
    result: asyncio.Future[Any]

    async def opened(self, profile: Path, **query: str) -> Any:
        """Open it in Chromium, and return what it reports."""
        process = await asyncio.create_subprocess_exec(
            *CHROMIUM, f"--user-data-dir={profile}", "--remote-debugging-port=0", f"{self.origin}/?{urlencode(query)}",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            return await asyncio.wait_for(self.result, 60)
        finally:
            process.kill()
            await process.wait()


@asynccontextmanager
async def page(script: Path) -> AsyncIterator[Page]:
    """Serve a page with this script."""
    result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def html(_: web.Request) -> web.Response:
        return web.Response(text='<script type="module" src="/page.js"></script>', content_type="text/html")

    async def javascript(_: web.Request) -> web.FileResponse:
        return web.FileResponse(script)

    async def take(request: web.Request) -> web.Response:
        result.set_result(json.loads(await request.text()))
        return web.Response()

    app = web.Application()
    app.add_routes([web.get("/", html), web.get("/page.js", javascript), web.post("/result", take)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield Page(f"http://127.0.0.1:{runner.addresses[0][1]}", result)
    finally:
        await runner.cleanup()


async def report(script: Path, folder: Path, standin: StandIn, front: Start, configuration: Any, allowed: bool) -> Any:
    """What a page reports whose origin Envoy allows, or doesn't."""
    keys = folder / "keys.json"
    token = create_key(keys, user="u", organization="o", project="p", permissions=("edit_workflows",), expires=None)
    settings = settings_for(
        standin, AGENTA_AI_GRPC_AUTH="api_keys", AGENTA_AI_GRPC_API_KEYS_FILE=str(keys), AGENTA_AI_GRPC_BREAKER="off"
    )
    async with page(script) as site, serve.running(settings) as address:
        if allowed:
            allow(configuration, site.origin)
        async with front(address) as envoy:
            return await site.opened(folder / "profile", envoy=f"https://{envoy.address}", token=f"ApiKey {token}")


def allow(configuration: Any, origin: str) -> None:
    """Put the page's origin in the place of the one that is shipped."""
    (chain,) = configuration["static_resources"]["listeners"][0]["filter_chains"]
    (host,) = chain["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]
    policies = [policy for route in host["routes"] for policy in route.get("typed_per_filter_config", {}).values()]
    assert [policy["allow_origin_string_match"] for policy in policies] == [[{"exact": ALLOWED}]] * 2
    for policy in policies:
        policy["allow_origin_string_match"] = [{"exact": origin}]


async def test_a_page_calls_tools(
    script: Path, tmp_path: Path, standin: StandIn, front: Start, configuration: Any
) -> None:
    found = await report(script, tmp_path, standin, front, configuration, allowed=True)
    assert found.get("error") is None
    assert found["status"] == 1
    assert json.loads(found["refined"])["messages"][0]["content"].startswith("Translate {{text}}")
    assert "The tool has started." in found["progress"]
    assert found["refused"]["code"] == "InvalidArgument"
    assert {"google.rpc.ErrorInfo", "google.rpc.BadRequest"} <= set(found["refused"]["details"])
    assert found["unauthenticated"]["code"] == "Unauthenticated"
    assert found["late"]["code"] == "DeadlineExceeded"


async def test_a_page_of_another_origin_cannot_call(
    script: Path, tmp_path: Path, standin: StandIn, front: Start, configuration: Any
) -> None:
    found = await report(script, tmp_path, standin, front, configuration, allowed=False)
    assert "Failed to fetch" in found["error"]
