"""The faults of the stand-in."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from agenta_ai_server.standin.causes import CAUSES

if TYPE_CHECKING:
    from collections.abc import Callable

_PLACES = ("headers", "body")
_CHOICES = {
    "cause": tuple(CAUSES),
    "body": ("broken", "empty", "html", "older", "plain", "traceless"),
    "answer": ("empty", "fenced", "fewer", "lossy", "null", "prose", "tools", "truncated"),
    "stall": _PLACES,
    "reset": _PLACES,
    "close": _PLACES,
}
_EXCLUSIVE = (("status", "cause"), ("answer", "text"), ("stall", "reset", "close", "length", "garbage", "drip", "huge"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way in which a run fails; without arguments, none.

    What the answer is (``status``, ``cause``, ``retry_after``, ``body``, ``answer``, ``text``), when it begins
    (``delay``) and how it is sent (the rest, of which only one can be given) go together freely.

    Args:
        status: HTTP status, 300 to 599, with the body that Agenta sends with it; ``None`` for the usual answer. A
            redirection points to ``/services/elsewhere``.
        cause: Why the run fails, with the status and the body that Agenta sends then: one of
            :data:`~agenta_ai_server.standin.causes.CAUSES`, such as ``not-deployed``.
        retry_after: The header ``Retry-After``, as it is sent: seconds or an HTTP date. Empty for none.
        delay: Seconds before anything else happens.
        body: What is done to the body: ``broken`` (half of it), ``empty``, ``html`` (a proxy's page), ``older``
            (``traceId`` in place of ``trace_id``), ``plain`` (no JSON), ``traceless`` (no trace id).
        answer: What the model wrote: ``empty``, ``fenced`` (the refinement in Markdown fences), ``fewer`` (it lacks a
            message), ``lossy`` (it lacks all template tags), ``null`` (a refusal), ``prose``, ``tools`` (a list of tool
            calls), ``truncated`` (half of it).
        text: What the model wrote, literally.
        stall: Say nothing more, and keep the connection: before the ``headers``, or in the middle of the ``body``.
        reset: Reset the connection (RST), at the same places.
        close: Close the connection (FIN), at the same places.
        length: Say that the body has this many bytes, send the real one, and close.
        garbage: Send something that isn't HTTP, and close.
        drip: Seconds between one byte of the body and the next.
        huge: Send this many MiB of blanks after the body.

    Raises:
        ValueError: A value out of its bounds, or two that exclude each other.
    """

    status: int | None = None
    cause: str = ""
    retry_after: str = ""
    delay: float = 0.0
    body: str = ""
    answer: str = ""
    text: str | None = None
    stall: str = ""
    reset: str = ""
    close: str = ""
    length: int | None = None
    garbage: bool = False
    drip: float = 0.0
    huge: int = 0

    def __post_init__(self) -> None:
        if self.status is not None and not 300 <= self.status <= 599:
            raise ValueError(f"status={self.status} is not one of 300 to 599")
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            if value and value not in known:
                raise ValueError(f"{name}={value} is not one of {', '.join(known)}")
        for name in ("delay", "drip", "length", "huge"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name}={value} is not a number from 0 up")
        given = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        for group in _EXCLUSIVE:
            both = [name for name in given if name in group]
            if len(both) > 1:
                raise ValueError(f"{' and '.join(both)} exclude each other")

    @classmethod
    def parse(cls, spec: str) -> Fault:
        """Read a fault from words such as ``"status=503 retry-after=2 delay=0.5"``.

        The words are the fields' names, with a hyphen for the underscore. ``garbage`` has no value. A value with blanks
        is quoted as for a shell, except that of ``text``: it takes all that follows.

        Raises:
            ValueError: A word that isn't known, with a list of those that are, or a wrong value.
        """
        words, given = _split(spec)
        for word in words:
            name, _, value = word.partition("=")
            if name not in _READERS:
                raise ValueError(f"{name!r} is not a known fault; known are: {', '.join(_READERS)}")
            try:
                given[name.replace("-", "_")] = _READERS[name](value)
            except ValueError:
                raise ValueError(f"{word!r} has no valid value") from None
        return cls(**given)


def _split(spec: str) -> tuple[list[str], dict[str, Any]]:
    """Part the words from the text, which may hold anything: JSON with quotes, say."""
    before, found, text = f" {spec}".partition(" text=")
    return shlex.split(before), {"text": text} if found else {}


def _one_word(value: str) -> str:
    if not value:
        raise ValueError
    return value


def _alone(value: str) -> bool:
    if value:
        raise ValueError
    return True


_READ_AS: dict[str, Callable[[str], object]] = {
    "status": int,
    "delay": float,
    "length": int,
    "garbage": _alone,
    "drip": float,
    "huge": int,
}
_READERS = {field.name.replace("_", "-"): _READ_AS.get(field.name, _one_word) for field in fields(Fault)}
