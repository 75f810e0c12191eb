"""Limits the bytes of unread responses.

grpc.aio has no way to end a call whose response is being sent. Cancelling its task frees only the task: the response
stays with grpc until it is read or its connection ends, and is counted until then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

MAX_BYTES_PER_CALLER = 8 << 20
MAX_BYTES = 256 << 20


class UnsentResponses:
    """Counts the bytes of responses that grpc holds until they have been sent.

    Args:
        max_bytes_per_caller: What one caller may leave unread.
        max_bytes: What all callers together may leave unread.

    Attributes:
        bytes: What all callers together leave unread now.
    """

    def __init__(self, max_bytes_per_caller: int = MAX_BYTES_PER_CALLER, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes_per_caller = max_bytes_per_caller
        self._max_bytes = max_bytes
        self._per_caller: dict[Hashable, int] = {}
        self.bytes = 0

    def add(self, caller: Hashable, size: int) -> bool:
        """Count a response, if the ``caller`` may leave that many more bytes unread; return whether it may.

        Its first response always fits: callers that read nothing must not keep others from theirs.
        """
        held = self._per_caller.get(caller, 0)
        if held and (held + size > self._max_bytes_per_caller or self.bytes + size > self._max_bytes):
            return False
        self._per_caller[caller] = held + size
        self.bytes += size
        return True

    def remove(self, caller: Hashable, size: int) -> None:
        """Remove a response: it has been sent, or its connection has ended."""
        self.bytes -= size
        if left := self._per_caller.pop(caller, 0) - size:
            self._per_caller[caller] = left
