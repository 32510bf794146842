"""How much one person counts in a comparison: so many replies in a language, and so many opinions, and no more."""

import math
import time
from collections import Counter
from collections.abc import Callable

from agent.ports import Audience

_MAX_SUBJECTS = 100_000
"""People whose replies are counted; beyond, counting begins anew."""


class PersonCap:
    """Counts, and says who has had enough. Requests that name nobody always count."""

    def __init__(self, most: int, *, period_s: float = math.inf, clock: Callable[[], float] = time.monotonic) -> None:
        """``most`` in each ``period_s`` seconds."""
        self._most, self._period_s, self._clock = most, period_s, clock
        self._began_s = clock()
        self._seen: Counter[Audience] = Counter()

    def admits(self, audience: Audience) -> bool:
        """Count one more reply; False once its person has had as many as count."""
        return not audience.is_named or self._admits(audience)

    def admits_voice(self, audience: Audience, voice: str) -> bool:
        """The same for feedback, whosever reply it is about."""
        return self._admits(Audience(audience.tenant, audience.language, f"feedback of {voice}", is_named=True))

    def _admits(self, audience: Audience) -> bool:
        now_s = self._clock()
        if now_s - self._began_s >= self._period_s or len(self._seen) >= _MAX_SUBJECTS:
            self._began_s = now_s
            self._seen.clear()
        self._seen[audience] += 1
        return self._seen[audience] <= self._most


def group_of(audience: Audience) -> str | None:
    """What a person's values are told by in a tally; None where nobody is named."""
    return f"{audience.tenant} {audience.subject}" if audience.is_named else None
