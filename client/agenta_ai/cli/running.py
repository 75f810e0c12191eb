"""Tracks the calls of this command, so that a user who loses their results learns how to get them."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Running:
    """The running and the answered calls. Thread-safe."""

    def __init__(self) -> None:
        self._labels: dict[str, str] = {}
        self._answered: dict[str, str] = {}
        self._changing = threading.Lock()
        self._frozen = False

    @contextmanager
    def call(self, request_id: str, label: str = "") -> Iterator[None]:
        """Track a call while it runs; keep it if it is interrupted.

        Args:
            request_id: Its idempotency key.
            label: Distinguishes it from others, such as the name of a file.
        """
        with self._changing:
            self._labels[request_id] = label
        try:
            yield
        except Exception:
            self._ended(request_id)
            raise
        self._ended(request_id)
        with self._changing:
            self._answered[request_id] = label

    def freeze(self) -> None:
        """Keep the call, because it was interrupted."""
        with self._changing:
            self._frozen = True

    def notes(self) -> list[str]:
        """Return what an interrupted user needs to know about the running calls."""
        with self._changing:
            calls = list(self._labels.items())
        if not calls:
            return []
        if len(calls) == 1:
            request_id, label = calls[0]
            return [
                f"Interrupted{f' during {label}' if label else ''}. The call may have run and may have been billed. "
                f"To get its result, run the command again with --request-id {request_id}."
            ]
        return [
            "Interrupted. These calls may have run and may have been billed. "
            "To get a result, run the command again for one file, with its --request-id:",
            *(f"{label} --request-id {request_id}" for request_id, label in calls),
        ]

    def unseen(self) -> str:
        """Return how to get the results that couldn't be printed; empty if there are none."""
        with self._changing:
            answered = dict(self._answered)
        if len(answered) == 1:
            return f" To get the result again, use --request-id {next(iter(answered))}."
        each = ", ".join(f"{label} --request-id {request_id}" for request_id, label in answered.items())
        return f" To get a result again, run the command for one file: {each}." if each else ""

    def _ended(self, request_id: str) -> None:
        with self._changing:
            if not self._frozen:
                self._labels.pop(request_id, None)
