"""Outcomes at rest: as they are, encrypted, or not stored."""

from __future__ import annotations

import base64
import itertools
import os
import time
from typing import TYPE_CHECKING

import pytest
from idempotency.conftest import Backing, SqliteBacking, store_on

from agenta_ai_server.idempotency.ledger import Finished, Lost
from agenta_ai_server.idempotency.sealing import Encrypted, EncryptedByFile, Plain, Sealing, Unstored
from agenta_ai_server.idempotency.store import Leading

if TYPE_CHECKING:
    from collections.abc import Sequence
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
    assert EncryptedByFile(file).unseal("id", sealed) == SECRET


@pytest.mark.parametrize("content", [b"", b"\n", b"short", base64.b64encode(bytes(16)), b"\xff\xfe", b"not base64!"])
def test_a_file_of_other_things_isnt_quoted(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="must hold 32-byte keys") as raised:
        EncryptedByFile(file)
    assert content.decode(errors="replace").strip() in ("", "\ufffd\ufffd") or content.decode() not in str(raised.value)


def test_a_missing_file_of_keys(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No such file"):
        EncryptedByFile(tmp_path / "none")


def until_it_reads(sealing: Sealing, keys: Sequence[bytes]) -> None:
    """Wait until it encrypts with the first of the keys, and decrypts with these alone."""

    def is_readable(key: bytes) -> bool:
        return sealing.unseal("id", Encrypted([key]).seal("id", SECRET) or b"") == SECRET

    end = time.monotonic() + 20
    while [is_readable(key) for key in (OLD, NEW)] != [key in keys for key in (OLD, NEW)] or (
        Encrypted([keys[0]]).unseal("id", sealing.seal("id", SECRET) or b"") != SECRET
    ):
        assert time.monotonic() < end
        time.sleep(0.001)  # the file is read in a thread


def test_keys_are_rotated_while_the_server_runs(tmp_path: Path) -> None:
    file = tmp_path / "keys"

    def write(*keys: bytes) -> None:
        (tmp_path / "new").write_bytes(b"\n".join(map(base64.b64encode, keys)))
        (tmp_path / "new").replace(file)

    write(OLD)
    # Each look at the file is a second after the last one.
    sealing = EncryptedByFile(file, clock=itertools.count().__next__)
    sealed = [sealing.seal("id", SECRET)]
    for keys in ((OLD, NEW), (NEW, OLD)):
        write(*keys)
        until_it_reads(sealing, keys)
        sealed.append(sealing.seal("id", SECRET))
        assert [sealing.unseal("id", each or b"") for each in sealed] == [SECRET] * len(sealed)
    write(NEW)
    until_it_reads(sealing, (NEW,))
    assert [sealing.unseal("id", each or b"") for each in sealed] == [None, None, SECRET]
