"""Named targets with their credentials, in a file that only the user can read."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agenta_ai.errors import InvalidInput

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_READABLE_BY_OTHERS = 0o077


@dataclass(frozen=True)
class Target:
    """A server and the credentials for it. ``repr()`` shows no secret.

    Attributes:
        address: ``host:port``, or another address of gRPC.
        tls: As ``--tls`` and ``--plaintext`` say; ``None`` if neither was given.
        ca: File of certificate authorities; empty for the system's.
        api_key: A key; empty if there is none.
        token: A bearer token; empty if there is none.
        project: Id of the project to act in; empty for the key's own.
    """

    address: str
    tls: bool | None = None
    ca: str = ""
    api_key: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    project: str = ""

    @property
    def credential(self) -> str:
        """The kind of credential, in a word."""
        return "API key" if self.api_key else "token" if self.token else "none"


@dataclass
class Targets:
    """All named targets, and the one that is used by default."""

    targets: dict[str, Target] = field(default_factory=dict)
    current: str = ""


def path() -> Path:
    """Return where the file is."""
    base = os.environ.get("XDG_CONFIG_HOME") or (os.environ.get("APPDATA") if os.name == "nt" else "")
    return (Path(base) if base else Path.home() / ".config") / "agenta-ai" / "targets.json"


def load() -> Targets:
    """Return the named targets; none if there is no file.

    Raises:
        InvalidInput: The file can't be read, isn't of the right form, or others can read it.
    """
    file = path()
    try:
        content = file.read_bytes()
        mode = file.stat().st_mode
    except FileNotFoundError:
        return Targets()
    except OSError as error:
        raise InvalidInput(f"Cannot read {file}: {error.strerror}.") from None
    if os.name == "posix" and mode & _READABLE_BY_OTHERS:
        raise InvalidInput(f"{file} holds credentials, and others can read it. Run: chmod 600 {file}")
    try:
        read: dict[str, Any] = json.loads(content)
        targets = {name: Target(**each) for name, each in read["targets"].items()}
        return Targets(targets, str(read["current"]))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InvalidInput(f"{file} is not a file of targets. Correct it, or remove it and add them again.") from None


def save(targets: Targets) -> None:
    """Write the named targets, so that only this user can read them.

    Raises:
        InvalidInput: The file can't be written.
    """
    file = path()
    content = {"current": targets.current, "targets": {name: asdict(each) for name, each in targets.targets.items()}}
    temporary = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as opened:
            json.dump(content, opened, indent=2)
            opened.write("\n")
        os.replace(temporary, file)
    except OSError as error:
        raise InvalidInput(f"Cannot write {file}: {error.strerror}.") from None


def check_name(name: str) -> str:
    """Return the name of a target.

    Raises:
        InvalidInput: It could be taken for an address, or is too long.
    """
    if not NAME.fullmatch(name):
        raise InvalidInput(f"{name!r} is not a name: use 1 to 64 letters, digits, '-', '_' and '.'.")
    return name


def find(targets: Targets, name: str) -> Target:
    """Return the target of this name.

    Raises:
        InvalidInput: There is none.
    """
    from difflib import get_close_matches

    if name in targets.targets:
        return targets.targets[name]
    close = get_close_matches(name, targets.targets, 1)
    advice = f"Did you mean {close[0]}?" if close else "Run agenta-ai target list to see them."
    raise InvalidInput(f"There is no target {name}. {advice}")
