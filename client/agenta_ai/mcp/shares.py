"""Limits on what each caller, and all callers together, may hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Self

from agenta_ai.mcp.turns import PacedTurns


@dataclass
class Shares:
    """Counts how much of a limited resource callers hold.

    Attributes:
        most: What all callers together may hold.
        most_of_caller: What one of them may hold. Callers without credentials can't be distinguished, and have no
            share.
    """

    most: int
    most_of_caller: int
    _total: int = 0
    _held: Counter[str] = field(default_factory=Counter)

    def take(self, holder: str, amount: int = 1) -> bool:
        """Count the amount for a caller. Return ``False`` if there is no room; then nothing was counted.

        Args:
            holder: Of :func:`~agenta_ai.mcp.callers.holder`.
            amount: At least 0.
        """
        of_caller = self._held[holder] + amount
        if self._total + amount > self.most or (holder and of_caller > self.most_of_caller):
            return False
        self._total += amount
        self._held[holder] = of_caller
        return True

    def give_back(self, holder: str, amount: int = 1) -> None:
        """Stop counting the amount."""
        self._total -= amount
        self._held[holder] -= amount
        if not self._held[holder]:
            del self._held[holder]


@dataclass
class Hold:
    """What one request takes of a share, given back when the last ``with`` block that uses it has ended.

    Attributes:
        shares: What it takes from.
        holder: Whose share.
        turns: What it waits for before long work.
    """

    shares: Shares
    holder: str
    turns: PacedTurns = field(default_factory=PacedTurns)
    _amount: int = 0
    _users: int = 0

    def grow(self, amount: int) -> bool:
        """Take as much as is missing to the amount. Return ``False`` if there is no room; then nothing was taken."""
        if not self.shares.take(self.holder, amount - self._amount):
            return False
        self._amount = amount
        return True

    async def turn(self) -> None:
        """Wait for a turn, if anything is taken: what takes little memory is done quickly."""
        if self._amount:
            await self.turns.take(self.holder)

    def __enter__(self) -> Self:
        self._users += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._users -= 1
        if not self._users:
            self.shares.give_back(self.holder, self._amount)
            self._amount = 0
