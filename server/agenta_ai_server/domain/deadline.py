"""The margins of deadlines, and the one refusal of a call that has too little time left."""

from __future__ import annotations

from agenta_ai_server.domain.errors import Reason, Refused

# Seconds before a call's deadline by which its last request must have ended, so that the answer arrives in time.
MARGIN_SECONDS = 0.25
# Seconds that a tool gets beyond its deadline to end with its own, more exact failure.
GRACE_SECONDS = 1.0


def too_little_time(least: float) -> Refused:
    """Return the refusal of a call with less than ``least`` seconds left of its deadline."""
    unit = "second" if least == 1 else "seconds"
    return Refused(
        Reason.DEADLINE_TOO_SHORT,
        f"Less than {least:g} {unit} left before the call's deadline, too little to run the tool. Nothing was billed. "
        "Set a longer deadline.",
    )
