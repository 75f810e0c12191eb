from __future__ import annotations

import asyncio
import errno
import hmac
import json
import multiprocessing
import os
import re
import stat
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenta_ai_server.auth.api_keys import ApiKeyAuthenticator
from agenta_ai_server.auth.authenticator import Credentials, invalid
from agenta_ai_server.auth.key_file import KEY, create_key, hashed, list_keys, revoke_key
from agenta_ai_server.domain.call import Principal
from agenta_ai_server.domain.errors import Reason, Refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor
    from pathlib import Path

SECRET = "5ec2e7" + "0" * 58
EXPIRY = datetime(2100, 1, 1, tzinfo=UTC)
RECORD: dict[str, Any] = {
    "id": "abcdefghijk1",
    "hash": hashed(SECRET),
    "created": "2026-01-01T00:00:00Z",
    "user": "u",
    "organization": "o",
    "project": "p",
    "expires": None,
    "disabled": False,
}
KNOWN = "aai_abcdefghijk1_" + SECRET

create = partial(create_key, user="u", organization="o", project="p", expires=None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def write(path: Path, *keys: dict[str, Any], **rest: Any) -> Path:
    path.write_text(json.dumps({"version": 1, "keys": keys, **rest}))
    path.chmod(0o600)
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def key_id(key: str) -> str:
    return key.split("_")[1]


async def principal(authenticator: ApiKeyAuthenticator, key: str) -> Principal | None:
    """Whose key it is; ``None`` if it is refused as everything is that is wrong."""
    try:
        return await authenticator.authenticate(Credentials("ApiKey", key))
    except Refused as error:
        refused = error
    assert (refused.reason, refused.message) == (Reason.CREDENTIALS_INVALID, invalid().message)
    return None


@pytest.fixture(scope="module")
def authenticator(tmp_path_factory: pytest.TempPathFactory) -> ApiKeyAuthenticator:
    return ApiKeyAuthenticator(write(tmp_path_factory.mktemp("keys") / "keys.json", RECORD))


@pytest.mark.parametrize(
    ("credentials", "accepted"),
    [
        (Credentials("ApiKey", KNOWN), True),
        (Credentials("ApiKey", "aai_anything"), True),
        (Credentials("ApiKey", "AAI_anything"), False),
        (Credentials("ApiKey", "an-agenta-key"), False),
        (Credentials("Bearer", KNOWN), False),
        (Credentials("Secret", KNOWN), False),
        (Credentials(), False),
    ],
)
def test_accepts(path: Path, credentials: Credentials, accepted: bool) -> None:
    assert ApiKeyAuthenticator(path).accepts(credentials) is accepted


async def test_created_key_is_its_principal(path: Path) -> None:
    key = create_key(
        path,
        user="u1",
        organization="o1",
        project="p1",
        workspace="w1",
        plan="pro",
        permissions=["run", "view"],
        expires=EXPIRY,
    )
    authenticator = ApiKeyAuthenticator(path)
    assert await principal(authenticator, key) == Principal(
        user="u1",
        organization="o1",
        project="p1",
        workspace="w1",
        plan="pro",
        permissions=frozenset({"run", "view"}),
        method="api_key",
    )
    await authenticator.aclose()


async def test_without_permissions_nothing_is_allowed(path: Path) -> None:
    found = await principal(ApiKeyAuthenticator(write(path, RECORD)), KNOWN)
    assert found is not None
    assert found.permissions == frozenset()


@pytest.mark.parametrize(("now", "good"), [(-1e9, True), (-0.001, True), (0, False), (1e9, False)])
async def test_expiry(path: Path, now: float, good: bool) -> None:
    key = create(path, expires=EXPIRY.astimezone(timezone(timedelta(hours=-7))))
    authenticator = ApiKeyAuthenticator(path, clock=lambda: EXPIRY.timestamp() + now)
    assert bool(await principal(authenticator, key)) is good


@pytest.mark.parametrize(
    ("key", "change", "good"),
    [
        (KNOWN, {}, True),
        (KNOWN, {"disabled": True}, False),
        (KNOWN, {"expires": "2026-01-01T00:00:01Z"}, False),
        (KNOWN, {"id": "000000000000"}, False),
        (KNOWN, {"hash": "sha256:" + "0" * 64}, False),
        (KNOWN[:-1] + "1", {}, False),
        ("aai_000000000000_" + SECRET, {}, False),
        ("aai_000000000000_", {"hash": hashed("")}, False),
        ("aai_abcdefghijk1_", {"hash": hashed("")}, False),
        ("aai_abcdefghijk1", {}, False),
        ("aai_", {}, False),
        ("", {}, False),
        (KNOWN.upper(), {}, False),
        (KNOWN + "_", {}, False),
        (KNOWN + "\n", {}, False),
        (" " + KNOWN, {}, False),
        ("aai_abcdefghijk１_" + SECRET, {}, False),
        ("aai_abcdefghijk1_" + SECRET[:-1] + "\udcff", {}, False),
    ],
)
async def test_every_outcome_takes_the_same_work(
    path: Path, monkeypatch: pytest.MonkeyPatch, key: str, change: dict[str, Any], good: bool
) -> None:
    authenticator = ApiKeyAuthenticator(write(path, RECORD | change))
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def count(one: str, other: str) -> bool:
        compared.append((len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", count)
    assert bool(await principal(authenticator, key)) is good
    assert compared == [(71, 71)]


@given(
    st.text()
    | st.text().map("aai_".__add__)
    | st.text(st.characters(max_codepoint=127)).map("aai_abcdefghijk1_".__add__)
    | st.from_regex(KEY).filter(lambda key: key != KNOWN)
)
def test_nothing_else_gets_in(authenticator: ApiKeyAuthenticator, key: str) -> None:
    assert asyncio.run(principal(authenticator, key)) is None


def test_missing_one_is_made_at_the_start_for_the_owner_alone(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authenticator = ApiKeyAuthenticator(path, every=0)
    assert not path.exists()
    assert not asyncio.run(principal(authenticator, KNOWN))
    umask = os.umask(0)
    try:
        asyncio.run(authenticator.start())
    finally:
        os.umask(umask)
    assert mode(path) == 0o600
    assert json.loads(path.read_bytes()) == {"version": 1, "keys": []}
    assert not caplog.records
    write(path, RECORD)
    assert asyncio.run(principal(authenticator, KNOWN))


def test_existing_one_is_left_alone(path: Path) -> None:
    before = write(path, RECORD).stat()
    asyncio.run(ApiKeyAuthenticator(path).start())
    assert path.stat().st_ino == before.st_ino


@pytest.mark.parametrize(
    ("name", "why"),
    [("missing/keys.json", "can't write .*: No such file or directory"), (".", "is a folder, not a regular file")],
)
def test_place_is_wrong(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        ApiKeyAuthenticator(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"expirse": None}, r"keys\[1\]\.expirse: is unknown"),
        ({"expires": "2027-01-01T00:00:00"}, r"keys\[1\]\.expires: .*timezone"),
        ({"expires": "2027-01-01"}, r"keys\[1\]\.expires: .*timezone"),
        ({"expires": "20270101000000"}, r"keys\[1\]\.expires: must be a time such as 2027-01-31T00:00:00Z, or null"),
        ({"expires": "hunter2"}, r"keys\[1\]\.expires: must be a time such as"),
        ({"expires": ""}, r"keys\[1\]\.expires: must be a time such as"),
        ({"expires": 4e9}, r"keys\[1\]\.expires: "),
        ({"expires": False}, r"keys\[1\]\.expires: "),
        ({"hash": "hunter2"}, r"keys\[1\]\.hash: "),
        ({"hash": "sha256:" + SECRET + "\n"}, r"keys\[1\]\.hash: "),
        ({"id": "ABCDEFGHIJK1"}, r"keys\[1\]\.id: "),
        ({"id": "abcdefghijk1"}, "duplicate id: abcdefghijk1$"),
        ({"user": ""}, r"keys\[1\]\.user: "),
        ({"user": 7}, r"keys\[1\]\.user: "),
        ({"permissions": "hunter2"}, r"keys\[1\]\.permissions: "),
        ({"permissions": [""]}, r"keys\[1\]\.permissions\[0\]: "),
        ({"disabled": "hunter2"}, r"keys\[1\]\.disabled: "),
        ({"disabled": 0}, r"keys\[1\]\.disabled: "),
    ],
)
def test_faults_of_a_record(path: Path, change: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why) as error:
        ApiKeyAuthenticator(write(path, RECORD, RECORD | {"id": "abcdefghijk2"} | change))
    assert str(error.value).startswith(f"{path}: ")
    assert not re.search(f"hunter2|{SECRET}|{hashed(SECRET)}", str(error.value))


@pytest.mark.parametrize("field", ["id", "hash", "created", "user", "expires", "disabled"])
def test_fields_that_must_be_there(path: Path, field: str) -> None:
    record = {name: value for name, value in RECORD.items() if name != field}
    with pytest.raises(ValueError, match=rf"keys\[0\]\.{field}: Field required"):
        ApiKeyAuthenticator(write(path, record))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "Invalid JSON"),
        (b"\xff", "Invalid JSON"),
        (b"[" * 100_000, "recursion limit"),
        (b"[]", "Input should be an object"),
        (b'{"version": 2, "keys": []}', "version: Input should be 1"),
        (b'{"version": 1, "kyes": []}', "kyes: is unknown"),
        (
            json.dumps({"keys": [RECORD]}).encode().replace(b'"disabled"', b'"disabled": true, "disabled"'),
            "disabled",
        ),
    ],
    ids=["empty", "no text", "deep", "list", "version", "name", "repeated"],
)
def test_faults_of_the_file(path: Path, content: bytes, why: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"keys.json: .*{why}"):
        ApiKeyAuthenticator(path)


async def test_broken_one_never_replaces_a_good_one(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    now = EXPIRY.timestamp() - 1
    authenticator = ApiKeyAuthenticator(
        write(path, RECORD | {"expires": EXPIRY.isoformat()}), clock=lambda: now, every=0
    )
    write(path, RECORD | {"expirse": None}).chmod(0o644)
    for _ in range(2):
        assert await principal(authenticator, KNOWN)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    os.unlink(path)
    for _ in range(2):
        assert await principal(authenticator, KNOWN), "a file that vanishes revokes nothing"
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    now += 1
    assert not await principal(authenticator, KNOWN), "but keys still expire"
    assert SECRET not in caplog.text


async def test_reader_sees_no_change_before_the_time(path: Path) -> None:
    authenticator = ApiKeyAuthenticator(write(path, RECORD), every=3600)
    write(path)
    assert await principal(authenticator, KNOWN)


@pytest.mark.parametrize(
    ("bits", "warns"),
    [(0o600, False), (0o400, False), (0o640, False), (0o440, False), (0o620, True), (0o604, True), (0o602, True)],
)
async def test_warns_if_it_is_open_to_others(
    path: Path, caplog: pytest.LogCaptureFixture, bits: int, warns: bool
) -> None:
    warning = [f"{path} can be read by everyone or written by its group: chmod 600 {path}"] * warns
    write(path, RECORD).chmod(bits)
    authenticator = ApiKeyAuthenticator(path, every=0)
    for _ in range(3):
        await principal(authenticator, KNOWN)
    assert caplog.messages == warning
    write(path).chmod(bits)
    assert not await principal(authenticator, KNOWN)
    assert caplog.messages == warning * 2, "once for each time that it is read"


async def test_secret_of_kubernetes(tmp_path: Path) -> None:
    """The file leads to ..data/keys.json, and ..data to a folder that is exchanged as a whole."""
    for name, keys in (("..1", [RECORD]), ("..2", [])):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "keys.json", *keys)
    (tmp_path / "..data").symlink_to("..1")
    path = tmp_path / "keys.json"
    path.symlink_to("..data/keys.json")
    authenticator = ApiKeyAuthenticator(path, every=0)
    assert await principal(authenticator, KNOWN)
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").replace(tmp_path / "..data")
    assert not await principal(authenticator, KNOWN)


def test_key_is_kept_nowhere(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    keys = [create(path) for _ in range(3)]
    assert all(KEY.fullmatch(key) for key in keys)
    assert mode(path) == 0o600
    records = list_keys(path)
    assert [record.id for record in records] == [key_id(key) for key in keys]
    assert len(set(keys)) == 3
    for key, record in zip(keys, records, strict=True):
        secret = key.split("_")[2]
        assert record.hash == hashed(secret)
        assert secret not in path.read_text()
        assert hashed(secret) not in repr(record)
        assert record.created.tzinfo is not None
    assert capfd.readouterr() == ("", "")


async def test_revoked_key_is_refused_from_the_next_reading_on(path: Path) -> None:
    revoked, other = create(path), create(path)
    authenticator = ApiKeyAuthenticator(path, every=0)
    assert await principal(authenticator, revoked)
    revoke_key(path, key_id(revoked))
    assert not await principal(authenticator, revoked)
    assert await principal(authenticator, other)
    revoke_key(path, key_id(revoked))
    assert [record.disabled for record in list_keys(path)] == [True, False]


async def test_new_key_is_accepted_from_the_next_reading_on(path: Path) -> None:
    authenticator = ApiKeyAuthenticator(path, every=0)
    await authenticator.start()
    assert await principal(authenticator, create(path))


@pytest.mark.parametrize("unknown", ["000000000000", "", KNOWN])
def test_unknown_id(path: Path, unknown: str) -> None:
    content = write(path, RECORD).read_bytes()
    with pytest.raises(ValueError, match=r"keys\.json: no key has this id") as error:
        revoke_key(path, unknown)
    assert SECRET not in str(error.value)
    assert path.read_bytes() == content


def test_nothing_to_revoke_or_list(path: Path) -> None:
    with pytest.raises(ValueError, match="no key has this id"):
        revoke_key(path, "000000000000")
    assert not path.exists()
    with pytest.raises(ValueError, match=r"can't read .*keys\.json: No such file"):
        list_keys(path)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"user": ""}, "^user: "),
        ({"permissions": [""]}, r"^permissions\[0\]: "),
        ({"expires": datetime(2100, 1, 1)}, "^expires: .*timezone"),
        ({"expires": datetime(2026, 1, 1, tzinfo=UTC)}, "^expires: must be in the future"),
    ],
)
def test_wrong_arguments(path: Path, arguments: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        create(path, **arguments)
    assert not path.exists()


@pytest.mark.parametrize(
    "use", [create, list_keys, lambda path: revoke_key(path, "abcdefghijk1")], ids=["create", "list", "revoke"]
)
def test_broken_file_stays_as_it_is(path: Path, use: Callable[[Path], object]) -> None:
    content = write(path, RECORD | {"expirse": None}).read_bytes()
    with pytest.raises(ValueError, match=r"keys.json: keys\[0\]\.expirse: is unknown"):
        use(path)
    assert path.read_bytes() == content


def test_link_stays_a_link(tmp_path: Path, path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = write(tmp_path / "elsewhere" / "target.json", RECORD)
    path.symlink_to("elsewhere/target.json")
    key = create(path)
    revoke_key(path, key_id(key))
    assert path.is_symlink()
    assert [record.disabled for record in list_keys(target)] == [False, True]


@pytest.mark.parametrize("bits", [0o600, 0o400, 0o640])
def test_access_stays_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch, bits: int) -> None:
    write(path, RECORD).chmod(bits)
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fchown", lambda _, user, group: given.append((user, group)))
    revoke_key(path, "abcdefghijk1")
    assert mode(path) == bits
    assert given == [(path.stat().st_uid, path.stat().st_gid)]


@pytest.mark.parametrize("step", ["fchown", "fsync", "replace"])
def test_failed_write_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    content = write(path, RECORD).read_bytes()

    def fail(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(ValueError, match=r"can't write .*keys\.json: Read-only file system"):
        create(path)
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["keys.json"]


@pytest.mark.parametrize(
    "executor",
    [
        partial(ThreadPoolExecutor, 4),
        partial(ProcessPoolExecutor, 3, mp_context=multiprocessing.get_context("spawn")),
    ],
    ids=["threads", "processes"],
)
async def test_writers_at_once_lose_nothing(path: Path, executor: Callable[[], Executor]) -> None:
    revoked = create(path)
    with executor() as writers:
        creations = [writers.submit(create, path) for _ in range(24)]
        writers.submit(revoke_key, path, key_id(revoked)).result()
        created = {key_id(creation.result()) for creation in creations}
    records = {record.id: record.disabled for record in list_keys(path)}
    assert records == {key_id(revoked): True} | dict.fromkeys(created, False)
    assert len(created) == 24
