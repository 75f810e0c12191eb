"""The interface of a ledger, which records the state of each id, and its values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, auto
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLLOWER_SECONDS = 2.0
"""How long a follower counts as waiting after its last claim."""

ENDING_SECONDS = 10.0
"""How long followers, which poll four times a second, can still fetch an outcome that isn't kept."""


class Run(NamedTuple):
    """One run of an id.

    Attributes:
        key: Names the id. Holds no personal data, for example because it is a hash.
        fingerprint: A hash of what the id stands for; the same in every repeat.
        token: Names the run, and no other one.
    """

    key: str
    fingerprint: bytes
    token: str


class Hold(NamedTuple):
    """A running run, and whether it may have been billed."""

    run: Run
    begun: bool


class EndKind(StrEnum):
    """How a run ended."""

    KEPT = auto()
    """It has an outcome that every repeat gets."""
    PASSED_ON = auto()
    """It has an outcome for those who wait now: nothing was billed, and a later repeat runs again."""
    RELEASED = auto()
    """It has no outcome, and nothing was billed."""
    ABANDONED = auto()
    """It has no outcome, and may have been billed if it has begun."""


class Ending(NamedTuple):
    """The end of a run, and the outcome if there is one; without ``data``, the outcome isn't stored."""

    kind: EndKind
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """The id is the claimant's to run."""


@dataclass(frozen=True, slots=True)
class Following:
    """Another run of the id is under way: claim again soon, with the ``token`` that names it."""

    token: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A run of the id has ended; ``data`` is its outcome."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Lost:
    """A run of the id may have been billed, and its outcome is lost."""


@dataclass(frozen=True, slots=True)
class Reused:
    """The id stands for something else."""


ClaimAnswer: TypeAlias = Claimed | Following | Finished | Lost | Reused


class LedgerFailed(Exception):
    """The ledger can't be used now. The step may have been recorded nevertheless.

    Args:
        why: The kind of failure, without addresses or secrets.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Ledger(Protocol):
    """Records the run of an id, whether it may have been billed, and its outcome. See ``rules.py`` for the states.

    All methods raise :class:`LedgerFailed`.
    """

    @property
    def is_shared(self) -> bool:
        """Whether other processes use it too."""

    async def open(self) -> None:
        """Get ready."""

    async def claim(self, run: Run, *, waited: str = "", rerun: bool = False) -> ClaimAnswer:
        """Claim an id.

        Args:
            run: The run that begins if the id is free.
            waited: The token of the run that the claimant has been waiting for, if it has.
            rerun: Whether to run an id again whose outcome is lost.
        """

    async def hold(self, holds: Sequence[Hold]) -> list[bool]:
        """Renew the leases of runs, record which of them have begun, and say for each whether it still is the one.

        When this returns true for a run that has begun, no repeat runs the id again by itself, even if this process
        dies.
        """

    async def end(self, run: Run, ending: Ending) -> None:
        """Record how a run ended."""

    async def followed(self, key: str) -> float:
        """Return for how many more seconds a claimant elsewhere counts as waiting for the id."""

    async def aclose(self) -> None:
        """Close what was opened."""
