"""When a delivery is tried again, and when it is given up.

Waits between tries follow Standard Webhooks' recommendation: ten tries over about 75 hours.
"""

import math
import random
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from service.webhooks.sender import Outcome

WAITS_S = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Between one try and the next: 5 s, 5 min, 30 min, 2, 5, 10, 14, 20 and 24 h."""
MAX_TRIES = len(WAITS_S) + 1
JITTER = 0.1
"""Waits are longer by a random share of up to this, so that receivers do not get a burst after an outage."""
MAX_RETRY_AFTER_S = 86_400.0
GONE = 410
SLOW_DOWN = frozenset({429, 502, 503, 504})
"""Statuses by which a receiver asks for patience; their `Retry-After` is heeded."""


def next_try(num_tries: int, outcome: Outcome, now: datetime, rng: random.Random) -> datetime | None:
    """When to try again after ``num_tries`` tries of which the last ended so; None when it was the last."""
    if num_tries >= MAX_TRIES or outcome.status == GONE:
        return None
    wait_s = WAITS_S[num_tries - 1] * (1 + rng.uniform(0, JITTER))
    return now + timedelta(seconds=max(wait_s, patience_s(outcome, now) or 0.0))


def patience_s(outcome: Outcome, now: datetime) -> float | None:
    """Seconds that the receiver asks to wait for, at most a day; None when it does not ask."""
    if outcome.status not in SLOW_DOWN or outcome.retry_after is None:
        return None
    wait_s = _retry_after_s(outcome.retry_after.strip(), now)
    return None if wait_s is None else min(max(wait_s, 0.0), MAX_RETRY_AFTER_S)


def _retry_after_s(value: str, now: datetime) -> float | None:
    """RFC 9110, section 10.2.3: a number of seconds, or a date."""
    if value.isascii() and value.isdecimal():
        return float(value[:9])
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    seconds = (at if at.tzinfo is not None else at.replace(tzinfo=UTC)) - now
    return math.ceil(seconds.total_seconds())
