"""Limits on what all callers together, and each of them, may hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Shares:
    """Counts what callers hold of something limited.

    Attributes:
        most: What all callers together may hold.
        most_of_caller: What one of them may hold. Those without credentials can't be told apart, and have no share.
    """

    most: int
    most_of_caller: int
    _total: int = 0
    _held: Counter[str] = field(default_factory=Counter)

    def take(self, holder: str, amount: int = 1) -> bool:
        """Count the amount for a caller if there is room. ``False``: there is none, and nothing was counted.

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
        """Count the amount no longer."""
        self._total -= amount
        self._held[holder] -= amount
        if not self._held[holder]:
            del self._held[holder]
