"""The state of this server process."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class ServerState:
    """The server process.

    Attributes:
        version: By semantic versioning.
        started: Seconds since the epoch.
        degraded: Whether the completion service is failing, so that calls are refused.
        draining: Whether the process is about to stop.
    """

    version: str
    started: float = field(default_factory=time.time)
    degraded: bool = False
    draining: bool = False
