"""Checks of the store of request_ids."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from uuid import uuid4

from agenta_ai_server.checks.shared import Found, failed, ok, sentence, warning
from agenta_ai_server.idempotency.ledger import Ending, EndKind, Hold, LedgerFailed, Run
from agenta_ai_server.idempotency.sealing import EncryptedByFile
from agenta_ai_server.idempotency.sqlite import SqliteLedger, file_fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from agenta_ai_server.settings import Settings


async def request_ids(settings: Settings) -> AsyncIterator[Found]:
    """Check that repeated calls are recognized, and for how long."""
    if settings.result_storage == "encrypted" and settings.result_keys_file:
        try:
            EncryptedByFile(settings.result_keys_file)
        except ValueError as error:
            yield failed(sentence(error), "Correct AGENTA_AI_GRPC_RESULT_KEYS_FILE.")
            return
    if settings.idempotency_file:
        async for found in _file(settings.idempotency_file):
            yield found
    elif settings.redis_url:
        yield ok("They are in Redis.")
    else:
        yield ok(
            "Each process keeps its own in memory; with AGENTA_AI_GRPC_IDEMPOTENCY_FILE, they also survive a crash."
        )


async def _file(path: Path) -> AsyncIterator[Found]:
    found, exists = _looked_at(path)
    if found:
        yield found
    if not exists:
        return
    try:
        await _use(SqliteLedger(path))
    except LedgerFailed as failure:
        fault, _, remedy = file_fault(failure.why).partition(". ")
        yield failed(f"{path} {fault}.", remedy)
    else:
        yield ok(f"They are in {path}, for the processes of this machine.")


def _looked_at(path: Path) -> tuple[Found | None, bool]:
    """Return what its permissions say, and whether it exists."""
    if path.exists():
        is_open = path.stat().st_mode & 0o077
        return warning(f"{path} is accessible to other users.", f"chmod 600 {path}") if is_open else None, True
    # If this command created it, it would belong to the command's user.
    if os.access(path.parent, os.W_OK):
        return ok(f"The server will create {path}."), False
    return failed(
        f"{path} can't be created.", f"Create {path.parent}, and make it writable for the server's user."
    ), False


async def _use(ledger: SqliteLedger) -> None:
    run = Run(f"probe-{uuid4().hex}", b"", "probe")
    try:
        await ledger.open()
        await ledger.claim(run)
        await ledger.hold([Hold(run, begun=True)])
        await ledger.end(run, Ending(EndKind.RELEASED))
    finally:
        await ledger.aclose()
