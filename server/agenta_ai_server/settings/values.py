"""The types of settings: parse and validate the texts of the environment."""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, TypeVar

from pydantic import AfterValidator, BeforeValidator, SecretStr

from agenta_ai_server.files.contents import read_file

if TYPE_CHECKING:
    from collections.abc import Callable

# Of sockaddr_un, without the NUL at its end.
MAX_SOCKET_PATH_BYTES = 107
ADDRESS = re.compile(r"(?P<host>[0-9.]+|\[[0-9a-fA-F:.]+\]):(?P<port>[0-9]{1,5})")

Value = TypeVar("Value", bound=str | SecretStr | None)


def split_names(value: object) -> object:
    """Split a list separated by commas; empty items are left out."""
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


def _split_pairs(value: object) -> object:
    if not isinstance(value, str):
        return value
    pairs = [pair.split("=") for pair in value.split(",") if pair.strip()]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("must be pairs such as name=value, separated by commas")
    return {name.strip(): content.strip() for name, content in pairs}


def checked_by(check: Callable[[str], object]) -> AfterValidator:
    """Let ``check`` see a value that is given. It raises ``ValueError`` without repeating it."""

    def validate(value: Value) -> Value:
        if isinstance(value, SecretStr):
            check(value.get_secret_value())
        elif value is not None:
            check(value)
        return value

    return AfterValidator(validate)


def read_text(path: Path) -> str:
    """Return the content of a file, without a byte order mark and surrounding blanks.

    Raises:
        ValueError: It can't be read, is empty or isn't text.
    """
    try:
        text = read_file(path).decode().strip()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not text") from None
    if not text:
        raise ValueError(f"{path} is empty")
    return text


def _listen_address(address: str) -> str:
    if not address.startswith("unix:"):
        return _checked_ip_address(address, "127.0.0.1:50051 or [::1]:50051, or unix:path")
    size = len(os.fsencode(address.removeprefix("unix:")))
    if not 0 < size <= MAX_SOCKET_PATH_BYTES:
        raise ValueError(f"the path of a socket has 1 to {MAX_SOCKET_PATH_BYTES} bytes, and this one has {size}")
    return address


def _metrics_address(address: str) -> str:
    return _checked_ip_address(address, "127.0.0.1:9464 or [::1]:9464")


def _checked_ip_address(address: str, examples: str) -> str:
    # A name may mean several addresses, some of which could be taken by another process unnoticed.
    address = re.sub(r"^localhost:", "127.0.0.1:", address)
    found = ADDRESS.fullmatch(address)
    try:
        if not found or int(found["port"]) > 65535:
            raise ValueError
        ipaddress.ip_address(found["host"].strip("[]"))
    except ValueError:
        raise ValueError(f"must be an IP address and a port, {examples}") from None
    return address


def _checked_authorities(path: Path) -> Path:
    text = read_text(path)
    try:
        ssl.create_default_context(cadata=text)
    except (ssl.SSLError, ValueError):
        raise ValueError(f"{path} contains no certificate in PEM format") from None
    return path


def _allowed(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the ids in their usual form."""
    if "*" in names and len(names) > 1:
        raise ValueError("must be either ids or *, which admits all")
    try:
        return tuple(name if name == "*" else str(uuid.UUID(name)) for name in names)
    except ValueError:
        raise ValueError("must be ids of Agenta, such as 01a1fd54-f02a-7880-ada6-862592899bf1, or *") from None


Names: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(split_names)]
"""A list, separated by commas."""
AllowedIds: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(split_names), AfterValidator(_allowed)]
"""UUIDs, separated by commas, or ``*``."""
Pairs: TypeAlias = Annotated[dict[str, str], BeforeValidator(_split_pairs)]
"""Pairs ``name=value``, separated by commas."""
ListenAddress: TypeAlias = Annotated[str, AfterValidator(_listen_address)]
"""``host:port`` with an IP address, or ``unix:path``."""
IpAddress: TypeAlias = Annotated[str, AfterValidator(_metrics_address)]
"""``host:port`` with an IP address."""
CaFile: TypeAlias = Annotated[Path, AfterValidator(_checked_authorities)]
"""A file with certificates in PEM form."""
