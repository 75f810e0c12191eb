"""The file of API keys: its form, and how keys are made, listed and revoked."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import string
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AwareDatetime, BeforeValidator, Field, ValidationError, model_validator

from agenta_ai_server.auth.records import PrincipalRecord, Record, parse, refuse_repeated, sentence
from agenta_ai_server.files.contents import read_file, replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Self

OWN_KEY_PREFIX = "aai_"
ID = "[0-9a-z]{12}"
# The id, which is public, and a secret of 256 random bits.
KEY = re.compile(f"{OWN_KEY_PREFIX}({ID})_([0-9a-f]{{64}})")
# Enough of a key to be one, wherever it stands: "xaai_…" is still ours.
_OWN_KEY = re.compile(OWN_KEY_PREFIX + r"[0-9a-z]+_[0-9a-f]{16}")


def _instant(value: object) -> object:
    """Read ISO 8601; pydantic by itself takes 20270101000000 for milliseconds, which end in the year 2612."""
    if not isinstance(value, str):
        return value
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("must be a time such as 2027-01-31T00:00:00Z, or null") from None


Instant = Annotated[AwareDatetime, BeforeValidator(_instant)]


class KeyRecord(PrincipalRecord):
    """One key, without its secret.

    Attributes:
        id: 12 lowercase letters and digits.
        hash: ``sha256:`` and the hash of the secret.
        created: When it was made.
        expires: From when on it is refused; ``None``: never.
        disabled: Whether it has been revoked.
    """

    id: Annotated[str, Field(pattern=f"^{ID}$")]
    hash: Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$", repr=False)]
    created: Instant
    expires: Instant | None
    disabled: bool

    def is_valid(self, now: float) -> bool:
        """Return whether the key is valid at ``now``, in seconds since the epoch."""
        return not self.disabled and (self.expires is None or now < self.expires.timestamp())


class KeyFile(Record):
    """All keys."""

    version: Literal[1] = 1
    keys: tuple[KeyRecord, ...] = ()

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Self:
        refuse_repeated((record.id for record in self.keys), "id")
        return self


def contains_own_key(secret: str) -> bool:
    """Return whether the secret contains an API key of this service, which must not be sent to anyone else."""
    return secret.startswith(OWN_KEY_PREFIX) or _OWN_KEY.search(secret) is not None


def hashed(secret: str) -> str:
    """Return the hash that the file has for the ``secret``."""
    # A slow hash makes up for secrets that can be guessed. 256 random bits can't be, at any speed.
    return "sha256:" + hashlib.sha256(secret.encode()).hexdigest()


def check_place(path: Path) -> None:
    """Check that a file could be made at ``path``, without making it.

    Raises:
        ValueError: It couldn't.
    """
    folder = os.path.dirname(os.path.realpath(path))
    with _faults_of_writing(path):
        os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def make_if_missing(path: Path) -> None:
    """Make a file without keys where there is none.

    Raises:
        ValueError: It can't be written.
    """
    if not os.path.exists(path):
        _change(path, lambda keys: keys)


def create_key(
    path: Path,
    *,
    user: str,
    organization: str,
    project: str,
    workspace: str = "",
    plan: str = "",
    permissions: Iterable[str] = (),
    expires: datetime | None,
) -> str:
    """Add a key to the file at ``path``, which is made if it is missing.

    Args:
        path: The file. A symbolic link stays one, and the file that it leads to is changed.
        user: Not empty.
        organization: As all ids, opaque; empty if there is none.
        project: As above.
        workspace: As above.
        plan: Name of the plan that the limits go by.
        permissions: Names of what the key's holder may do. Without any, nothing.
        expires: From when on it is refused, in the future and with a time zone; ``None``: never.

    Returns:
        The key. It is nowhere else, and can't be found out again.

    Raises:
        ValueError: An argument breaks a rule, or the file is broken or can't be written.
    """
    key_id = "".join(secrets.choice(string.digits + string.ascii_lowercase) for _ in range(12))
    secret = secrets.token_hex(32)
    now = datetime.now(UTC).replace(microsecond=0)
    try:
        record = KeyRecord(
            id=key_id,
            hash=hashed(secret),
            created=now,
            expires=expires,
            disabled=False,
            user=user,
            organization=organization,
            project=project,
            workspace=workspace,
            plan=plan,
            permissions=tuple(permissions),
        )
    except ValidationError as error:
        raise ValueError(sentence(error)) from None
    if not record.is_valid(now.timestamp()):
        raise ValueError("expires: must be in the future")
    _change(path, lambda file: KeyFile(keys=(*file.keys, record)))
    return f"{OWN_KEY_PREFIX}{key_id}_{secret}"


def list_keys(path: Path) -> list[KeyRecord]:
    """Return all keys of the file at ``path``, in the order in which they were made.

    Raises:
        ValueError: The file is broken or can't be read.
    """
    return list(_load(path).keys)


def revoke_key(path: Path, key_id: str) -> None:
    """Disable a key for good. It is not an error if it is disabled already.

    Raises:
        ValueError: No key has the id, or the file is broken or can't be written.
    """

    def disable(file: KeyFile) -> KeyFile:
        if all(record.id != key_id for record in file.keys):
            # Not quoted: the user may have given a whole key instead of its id.
            raise ValueError(f"{path}: no key has this id. It is the part of a key between its two underscores.")
        return KeyFile(
            keys=tuple(
                record.model_copy(update={"disabled": True}) if record.id == key_id else record for record in file.keys
            )
        )

    _change(path, disable)


def _change(path: Path, change: Callable[[KeyFile], KeyFile]) -> None:
    """Rewrite or create the file, under a lock."""
    # What a symbolic link leads to, because the link itself would be replaced by a file.
    path = Path(os.path.realpath(path))
    with _faults_of_writing(path):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # The file itself can't be the lock: a waiting writer would lock a file that has been replaced meanwhile.
            fcntl.flock(folder, fcntl.LOCK_EX)
            changed = change(_load(path) if path.exists() else KeyFile())
            replace_file(path, changed.model_dump_json(indent=2).encode() + b"\n")
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def _faults_of_writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        way_out = (
            ". Create its folder first, accessible only to this user" if isinstance(error, FileNotFoundError) else ""
        )
        raise ValueError(f"can't write {path}: {error.strerror}{way_out}") from None


def _load(path: Path) -> KeyFile:
    content = read_file(path)
    try:
        return parse(KeyFile, content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
