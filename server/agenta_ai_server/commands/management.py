"""Opens Agenta's management API for the commands that read or change what is deployed."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from agenta_ai_server.agenta.addresses import AgentaAddress
from agenta_ai_server.agenta.api import AgentaApi
from agenta_ai_server.agenta.credential import ServerKey
from agenta_ai_server.agenta.http import HttpClient
from agenta_ai_server.agenta.management import ManagementClient
from agenta_ai_server.domain.agenta_url import check_key
from agenta_ai_server.settings import SettingsError, read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from agenta_ai_server.settings import Settings

API_KEY = "AGENTA_API_KEY"
SERVER_KEY = "AGENTA_AI_SERVICES_API_KEY"
# The settings of the server that also say how to reach Agenta.
URL = "AGENTA_AI_SERVICES_API_URL"
SHARED = (URL, "AGENTA_AI_GRPC_UPSTREAM_CA_FILE", "AGENTA_AI_GRPC_UPSTREAM_PROXY")


@asynccontextmanager
async def open_management(
    environment: Mapping[str, str], api_key_file: Path | None, key_needed: str = ""
) -> AsyncIterator[ManagementClient]:
    """Open the client of the management API.

    Args:
        environment: Holds the address of Agenta and the key.
        api_key_file: File with the key, in place of the variable.
        key_needed: What to say if ``AGENTA_API_KEY`` is missing; empty to take the server's own key then, with which
            one can read.

    Raises:
        SettingsError: The key or the address is missing or malformed.
    """
    reading = read(environment)
    shared = SHARED if key_needed else (*SHARED, SERVER_KEY)
    faults = [fault for fault in reading.faults if fault.startswith(shared)]
    settings = reading.settings
    if not faults and settings.api_url is None:
        faults.append(f"{URL}: is missing. Set it to the address of Agenta, such as https://cloud.agenta.ai.")
    try:
        key = _key(environment, api_key_file, key_needed, settings)
    except ValueError as error:
        faults.append(f"{'--api-key-file' if api_key_file else API_KEY}: {str(error).rstrip('.')}.")
    if faults or settings.api_url is None:
        raise SettingsError(faults)
    address = AgentaAddress.parse(settings.api_url)
    proxy = settings.upstream_proxy.get_secret_value() if settings.upstream_proxy else None
    http = HttpClient(address.root, ca_file=settings.upstream_ca_file, proxy=proxy, keep_alive=False)
    try:
        yield ManagementClient(AgentaApi(http, address, key))
    finally:
        await http.aclose()


def _key(environment: Mapping[str, str], path: Path | None, key_needed: str, settings: Settings) -> ServerKey:
    if path is not None:
        return ServerKey("", path)
    key = environment.get(API_KEY, "").strip()
    if not key and not key_needed and settings.api_key is not None:
        return ServerKey(settings.api_key.get_secret_value())
    if not key:
        raise ValueError(
            key_needed
            or "is missing. Set it to an API key of Agenta (the viewer role is enough), or give a file that contains "
            f"one with --api-key-file, or set the server's {SERVER_KEY}"
        )
    check_key(key)
    return ServerKey(key)
