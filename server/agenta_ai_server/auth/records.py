"""The parts that files about callers share: a caller's identity, and how such a file is read."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agenta_ai_server.domain.call import Principal
from agenta_ai_server.domain.errors import Reason, Refused

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic_core import ErrorDetails

    from agenta_ai_server.files.reloading import ReloadingFile

# How long the last content stays valid while the file can't be read: no file descriptor is free, or the disk hangs.
MAX_UNKNOWN_SECONDS = 60.0
RETRY_SECONDS = 5.0


class Record(BaseModel):
    """A part of a file. An unknown field is an error: a misspelt ``expires`` must not make a key eternal."""

    # Files are validated as a whole, so that no validator of a single record is ever needed.
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)


class PrincipalRecord(Record):
    """An identity, with the fields of :class:`Principal`. Without permissions, it may do nothing."""

    user: Annotated[str, Field(min_length=1)]
    organization: str = ""
    project: str = ""
    workspace: str = ""
    plan: str = ""
    permissions: tuple[Annotated[str, Field(min_length=1)], ...] = ()

    def principal(self, method: str) -> Principal:
        """Return the principal, whose identity the ``method`` has proved."""
        return Principal(
            user=self.user,
            project=self.project,
            workspace=self.workspace,
            organization=self.organization,
            plan=self.plan,
            permissions=frozenset(self.permissions),
            method=method,
        )


AnyRecord = TypeVar("AnyRecord", bound=Record)
Content = TypeVar("Content")


def parse(model: type[AnyRecord], content: bytes) -> AnyRecord:
    """Read a file's ``content``, which is JSON, as the ``model`` has it.

    Raises:
        ValueError: With every fault by the path of its field, ``keys[0].expires``, and without any value.
    """
    try:
        parsed = model.model_validate_json(content)
    except ValidationError as error:
        raise ValueError(sentence(error)) from None
    # pydantic keeps the last of two equal names, so a "disabled" that is added to a record could be without effect.
    # This parser comes second, because it doesn't limit nesting.
    json.loads(content, object_pairs_hook=lambda pairs: refuse_repeated((name for name, _ in pairs), "field"))
    return parsed


def current(file: ReloadingFile[Content]) -> Content:
    """Return the file's content, unless the file has been unreadable for over a minute.

    Raises:
        Refused: AUTHORITY_UNAVAILABLE: the file may have revoked the credential meanwhile.
    """
    content = file.content
    if file.unknown_seconds > MAX_UNKNOWN_SECONDS:
        message = "The service can't check credentials now. Try again later."
        raise Refused(Reason.AUTHORITY_UNAVAILABLE, message, retry_delay=RETRY_SECONDS)
    return content


def refuse_repeated(names: Iterable[str], kind: str) -> None:
    """Raise ``ValueError`` if one of the ``names``, which are names of a ``kind`` and no secrets, is there twice."""
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"duplicate {kind}: {', '.join(repeated)}")


def sentence(error: ValidationError) -> str:
    """Return what is wrong with which fields, without any value."""
    return "; ".join(_fault(details) for details in error.errors(include_url=False, include_input=False))


def _fault(details: ErrorDetails) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in details["loc"]).lstrip(".")
    what = "is unknown" if details["type"] == "extra_forbidden" else details["msg"].removeprefix("Value error, ")
    return f"{path}: {what}" if path else what
