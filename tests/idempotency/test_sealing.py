"""Outcomes at rest: as they are, encrypted, or not stored."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING

import pytest
from idempotency.conftest import Backing, SqliteBacking, store_on

from agenta_ai_server.idempotency.ledger import Finished, Lost
from agenta_ai_server.idempotency.sealing import Encrypted, Plain, Sealing, Unstored
from agenta_ai_server.idempotency.store import Leading

if TYPE_CHECKING:
    from pathlib import Path

OLD, NEW = os.urandom(32), os.urandom(32)
SECRET = b"You are a helpful assistant. " * 3


async def finish(backing: Backing, sealing: Sealing) -> None:
    async with store_on(backing, sealing=sealing) as store:
        claim = await store.claim("id", b"f")
        assert isinstance(claim, Leading)
        await claim.lease.begin()
        await claim.lease.complete(SECRET, keep=True)


@pytest.mark.parametrize(
    ("wrote", "reads", "expected"),
    [
        (Plain(), Plain(), Finished(SECRET)),
        (Unstored(), Plain(), Lost()),
        (Encrypted([OLD]), Encrypted([OLD]), Finished(SECRET)),
        (Encrypted([OLD]), Encrypted([NEW, OLD]), Finished(SECRET)),
        (Encrypted([NEW, OLD]), Encrypted([OLD]), Lost()),
        (Plain(), Encrypted([OLD]), Lost()),
    ],
)
async def test_what_one_process_stores_another_reads_if_it_can(
    wrote: Sealing, reads: Sealing, expected: Finished | Lost, backing: Backing
) -> None:
    await finish(backing, wrote)
    async with store_on(backing, sealing=reads) as store:
        assert await store.claim("id", b"f") == expected


@pytest.mark.parametrize(("sealing", "is_there"), [(Plain(), True), (Unstored(), False), (Encrypted([OLD]), False)])
async def test_what_lies_on_the_disk(
    sealing: Sealing, is_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await finish(SqliteBacking(tmp_path / "ids.db", monkeypatch), sealing)
    assert (SECRET in on_disk(tmp_path)) is is_there


def on_disk(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


def test_what_was_tampered_with_or_moved_to_another_id_isnt_read() -> None:
    sealing = Encrypted([OLD])
    sealed = sealing.seal("id", SECRET)
    assert sealed
    assert sealing.unseal("id", sealed) == SECRET
    assert sealing.unseal("other", sealed) is None
    assert sealed != sealing.seal("id", SECRET)
    for position in range(0, len(sealed), 7):
        broken = bytearray(sealed)
        broken[position] ^= 1
        assert sealing.unseal("id", bytes(broken)) is None
    for length in range(20):
        assert sealing.unseal("id", sealed[:length]) is None


def test_the_file_of_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(base64.b64encode(key) for key in (NEW, OLD)) + b"\r\n")
    sealed = Encrypted([OLD]).seal("id", SECRET)
    assert sealed
    assert Encrypted.from_file(file).unseal("id", sealed) == SECRET


@pytest.mark.parametrize("content", [b"", b"\n", b"short", base64.b64encode(bytes(16)), b"\xff\xfe", b"not base64!"])
def test_a_file_of_other_things_isnt_quoted(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"must hold 32-byte keys|it isn't text") as raised:
        Encrypted.from_file(file)
    assert content.decode(errors="replace").strip() in ("", "\ufffd\ufffd") or content.decode() not in str(raised.value)


def test_a_missing_file_of_keys(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="can't be read: No such file"):
        Encrypted.from_file(tmp_path / "none")
