"""The header Retry-After."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_MAX_SECONDS = 3600.0


def retry_delay(retry_after: str | None, *, now: datetime) -> float | None:
    """Return the seconds to wait according to a Retry-After header, 0 to 3600; ``None`` if it doesn't say.

    Args:
        retry_after: The header's value, seconds or an HTTP date (RFC 9110, section 10.2.3); ``None`` if there is none.
            A fraction, which some proxies send, is rounded up.
        now: What dates are counted from.
    """
    value = (retry_after or "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?", value):
        seconds = float(value)
        seconds = math.ceil(seconds) if math.isfinite(seconds) else seconds
    else:
        try:
            date = parsedate_to_datetime(value)
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now.timestamp()
        except (ValueError, OverflowError):
            return None
    return float(min(max(seconds, 0.0), _MAX_SECONDS))
