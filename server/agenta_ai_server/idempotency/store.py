"""What is kept of runs: who runs an id now, and what came of those that have ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol, TypeAlias

from agenta_ai_server.domain.errors import Reason, Refused


class StoreState(Enum):
    """Where results are kept: where all replicas find them, in this process, or here or nowhere as the other fails."""

    SHARED = auto()
    LOCAL = auto()
    FALLBACK = auto()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run brought.

    Attributes:
        data: The result, as its callers will get it.
        keep: Whether later repeats get it too. If not, only those do that are waiting for this run.
    """

    data: bytes
    keep: bool


class Lease(Protocol):
    """The right to run an id, until one of :meth:`complete`, :meth:`fail` and :meth:`release` gives it back.

    None of the methods raises: whoever runs has a result to give, whether or not the store can be told.
    """

    async def complete(self, outcome: Outcome) -> None:
        """Hand the result to those who wait for it elsewhere, and keep it if the outcome says so."""

    async def fail(self) -> None:
        """Tell those who wait elsewhere that there is no result, and that there may have been an effect."""

    async def release(self) -> None:
        """Let those who wait elsewhere, or come later, run the id themselves."""

    async def awaited(self) -> float:
        """Return for how many seconds more somebody elsewhere is known to wait; 0 if nobody is."""


@dataclass(frozen=True, slots=True)
class Leading:
    """The claimant runs the id."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Following:
    """Another one runs the id: claim again soon, with the ``token`` that names its run."""

    token: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The id has been run; ``data`` is the result."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """The run that the claimant waited for ended without a result, and may have had an effect."""


Claim: TypeAlias = Leading | Following | Finished | Failed


class Store(Protocol):
    """Decides who runs an id, and keeps results for a while."""

    @property
    def state(self) -> StoreState:
        """Where results are kept now, as far as is known from the last question."""

    def __contains__(self, key: str, /) -> bool:
        """Say whether the store can answer for the id without asking anybody."""

    async def claim(self, key: str, fingerprint: bytes, waited: str = "") -> Claim:
        """Ask to run an id.

        Args:
            key: Names the id. Holds no personal data, for example because it is a hash.
            fingerprint: What the id stands for; the same in every repeat.
            waited: The token of the run that the claimant has been waiting for, if it has. Waiting lasts as long as
                claims come; each counts for about two seconds.

        Raises:
            Refused: REQUEST_ID_REUSED, if the id stands for something else; REPLAY_STORE_UNAVAILABLE, if nobody can
                tell.
        """


def reused() -> Refused:
    """Make the refusal of an id that stands for something else."""
    return Refused(
        Reason.REQUEST_ID_REUSED,
        "This request_id was used before, with other arguments or for another tool: make a new one for each new call.",
    )
