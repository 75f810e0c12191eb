"""The parts that files about callers share: a caller's identity, and how such a file is read."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agenta_ai_server.domain.call import Principal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic_core import ErrorDetails


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


Content = TypeVar("Content", bound=Record)


def parse(model: type[Content], content: bytes) -> Content:
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
