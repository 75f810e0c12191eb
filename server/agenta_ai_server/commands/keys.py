"""The commands ``agenta-ai-server keys``: make, list and revoke API keys."""

from __future__ import annotations

import json
import re
import shlex
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agenta_ai_server.assembly.tools import described_tools
from agenta_ai_server.auth.key_file import create_key, list_keys, revoke_key
from agenta_ai_server.auth.policy import SERVICE_PERMISSIONS, AccessPolicy
from agenta_ai_server.commands import stdout
from agenta_ai_server.domain.call import Principal
from agenta_ai_server.domain.tool import ToolSet

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from agenta_ai_server.auth.key_file import KeyRecord

FILE = "AGENTA_AI_GRPC_API_KEYS_FILE"
TOOLS_FILE = "AGENTA_AI_GRPC_TOOLS_FILE"
CHECK = "agenta-ai-server check"
REQUIRED = "AGENTA_AI_GRPC_REQUIRED_PERMISSIONS"
PERIOD = re.compile(r"(\d{1,5})([dh])")
COLUMNS = ("id", "state", "user", "organization", "project", "plan", "permissions", "created", "expires")


class KeyUnseen(Exception):
    """A key was created but couldn't be printed. The text says how to revoke it."""


def create(arguments: argparse.Namespace) -> None:
    """Create a key, and print it to standard output, once and without other text.

    Raises:
        ValueError: It can't be made.
        KeyUnseen: It is made, and can't be printed.
    """
    path = _path(arguments)
    key = create_key(
        path,
        user=arguments.user,
        organization=arguments.organization,
        project=arguments.project,
        workspace=arguments.workspace,
        plan=arguments.plan,
        permissions=arguments.permission,
        expires=_time(arguments.expires),
    )
    try:
        stdout.say(key)
    except stdout.OutputError as error:
        key_id = key.split("_")[1]
        raise KeyUnseen(
            f"key {key_id} was created, but can't be written to standard output: {error}. "
            f"Nobody has seen it, so revoke it: agenta-ai-server keys revoke {key_id} --file {shlex.quote(str(path))}"
        ) from None
    if doubt := _doubt(frozenset(arguments.permission), arguments.environment):
        print(doubt, file=sys.stderr)


def _doubt(permissions: frozenset[str], environment: Mapping[str, str]) -> str:
    """Return a warning about the permissions of a key. It is created anyway: it may be for another server."""
    file = environment.get(TOOLS_FILE, "").strip()
    try:
        tools = ToolSet(described_tools(Path(file) if file else None))
    except ValueError:
        return f"The tools file can't be used, so the key's permissions weren't compared with it: see {CHECK}."
    named = {name.strip() for name in environment.get(REQUIRED, "").split(",")}
    policy = AccessPolicy(named.intersection(SERVICE_PERMISSIONS))
    known = policy.permissions(tools)
    needed = f"Permissions that the tools need: {', '.join(sorted(known))}."
    if not policy.visible(Principal(user="", permissions=permissions), tools):
        return f"This key may call no tool. {needed}"
    if unknown := sorted(permissions - known):
        return f"No tool needs {', '.join(unknown)}. {needed}"
    return ""


def show(arguments: argparse.Namespace) -> None:
    """Print the keys, without their secrets.

    Raises:
        ValueError: The file can't be read.
        OutputError: They can't be printed.
    """
    rows = [_row(record) for record in list_keys(_path(arguments))]
    if arguments.json:
        stdout.say(json.dumps(rows, indent=2))
        return
    table = [COLUMNS, *(tuple(row.values()) for row in rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table)
    stdout.say("\n".join(lines))


def revoke(arguments: argparse.Namespace) -> None:
    """Disable a key. Running servers notice within a second or two.

    Raises:
        ValueError: There is no such key, or the file can't be written.
    """
    revoke_key(_path(arguments), arguments.id)


def _path(arguments: argparse.Namespace) -> Path:
    path = arguments.file or arguments.environment.get(FILE, "").strip()
    if not path:
        raise ValueError(f"give the file of the keys with --file, or set {FILE}")
    return Path(path)


def _time(text: str | None) -> datetime | None:
    """Read ``90d``, ``12h``, ``2027-01-31`` or ``2027-01-31T12:00:00Z``; without a zone it is UTC."""
    if text is None:
        return None
    if period := PERIOD.fullmatch(text):
        number = int(period[1])
        return datetime.now(UTC).replace(microsecond=0) + timedelta(
            **{"days": number} if period[2] == "d" else {"hours": number}
        )
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("--expires: must be a period such as 90d or 12h, or a time such as 2027-01-31") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _row(record: KeyRecord) -> dict[str, Any]:
    expired = not record.disabled and not record.is_valid(datetime.now(UTC).timestamp())
    return {
        "id": record.id,
        "state": "revoked" if record.disabled else "expired" if expired else "valid",
        "user": record.user,
        "organization": record.organization,
        "project": record.project,
        "plan": record.plan,
        "permissions": ",".join(record.permissions),
        "created": record.created.isoformat(),
        "expires": record.expires.isoformat() if record.expires else "never",
    }
