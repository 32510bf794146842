"""Whose request runs next when the engine is full: tenants in turn, by tokens, not whoever asked first.

    turn(tenant) ─► room, and not kept for others? ─► runs at once
                          └─ no ─► the tenant's own line (bounded) ─► deficit round-robin ─► runs

Lines are served by deficit round-robin (Shreedhar and Varghese 1995, "Efficient fair queuing using deficit
round-robin", section 3.2): each gets tokens in proportion to its weight, whatever the sizes of its requests.

Order alone would not be enough: a request that finds every slot taken by another tenant waits for one of them to end.
So room is kept for tenants that asked lately: as many slots as each had in use at its busiest moment of the last
seconds, at most its fair share. A tenant alone has the whole engine.

Counts sequences. A KV cache too small for `max_num_seqs` full sequences makes vLLM queue by itself, first come first
served.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from agent.errors import QueueFull

QUANTUM_TOKENS = 1024
"""Tokens that a tenant of weight 1 may start in a round."""
MEMORY_S = 10.0
"""A tenant that asked within this time has room kept for it."""
_SMOOTHING = 0.1
"""Weight of the newest duration in their running mean."""


@dataclass(frozen=True, slots=True)
class Share:
    """What a tenant is given."""

    weight: float = 1.0
    max_queued: int = 256


@dataclass(slots=True, eq=False)
class _Ticket:
    line: "_Line"
    num_tokens: int
    admitted: asyncio.Event = field(default_factory=asyncio.Event)


class _Peak:
    """The highest value of the last ``MEMORY_S`` to twice as many seconds."""

    def __init__(self) -> None:
        self._since_s = -math.inf
        self._older, self._newer = 0, 0

    def note(self, value: int, now_s: float) -> None:
        """A value at this time."""
        self._turn(now_s)
        self._newer = max(self._newer, value)

    def value(self, now_s: float) -> int:
        """The highest value lately; 0 when nothing was noted."""
        self._turn(now_s)
        return max(self._older, self._newer)

    def _turn(self, now_s: float) -> None:
        elapsed_s = now_s - self._since_s
        if elapsed_s >= MEMORY_S:
            self._older = self._newer if elapsed_s < 2 * MEMORY_S else 0
            self._newer = 0
            self._since_s = now_s


@dataclass(slots=True, eq=False)
class _Line:
    """One tenant's requests."""

    tenant: str
    share: Share
    waiting: deque[_Ticket] = field(default_factory=deque)
    num_running: int = 0
    deficit: float = 0.0
    peak: _Peak = field(default_factory=_Peak)

    @property
    def is_idle(self) -> bool:
        return not self.waiting and self.num_running == 0


@dataclass(frozen=True, slots=True)
class _Room:
    """The engine's free slots, and how many of them are kept for whom."""

    free: int
    kept: dict[str, int]
    num_kept: int

    def admits(self, line: _Line) -> bool:
        """Whether a slot is free that is not kept for another tenant."""
        return self.free > self.num_kept - self.kept.get(line.tenant, 0)


class FairQueue:
    """Lets live requests into the engine. Every change happens between two awaits."""

    def __init__(
        self,
        capacity: Callable[[], int],
        share_of: Callable[[str], Share] = lambda tenant: Share(),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``capacity`` tells how many sequences the engine runs at once; ``share_of`` what a tenant is given."""
        self._capacity, self._share_of, self._clock = capacity, share_of, clock
        self._lines: dict[str, _Line] = {}
        self._order: deque[_Line] = deque()
        self._num_running = 0
        self._mean_s = 1.0

    @property
    def num_waiting(self) -> int:
        """Requests in all lines."""
        return sum(len(line.waiting) for line in self._order)

    def waiting(self) -> dict[str, int]:
        """Requests in line, by tenant; every tenant that asked lately is named."""
        return {line.tenant: len(line.waiting) for line in self._lines.values()}

    @asynccontextmanager
    async def turn(self, tenant: str, num_tokens: int) -> AsyncIterator[None]:
        """Wait for the tenant's turn, and hold a slot for the length of the block.

        Args:
            num_tokens: of prompt and reply, at most.

        Raises:
            QueueFull: the tenant's line is full.
        """
        line = self._line(tenant)
        ticket = _Ticket(line, num_tokens)
        self._ask(ticket)
        try:
            if not ticket.admitted.is_set():
                await ticket.admitted.wait()
            started_s = self._clock()
            yield
            self._mean_s += _SMOOTHING * (self._clock() - started_s - self._mean_s)
        finally:
            self._end(ticket)

    def _line(self, tenant: str) -> _Line:
        line = self._lines.get(tenant)
        if line is None:
            self._forget_idle()
            line = self._lines[tenant] = _Line(tenant, self._share_of(tenant))
        line.share = self._share_of(tenant)
        return line

    def _ask(self, ticket: _Ticket) -> None:
        line = ticket.line
        now_s = self._clock()
        line.peak.note(line.num_running + len(line.waiting) + 1, now_s)
        if not line.waiting and self._room(now_s).admits(line):
            self._start(ticket)
            return
        if len(line.waiting) >= line.share.max_queued:
            raise QueueFull(
                f"at most {line.share.max_queued} of a tenant's requests wait for the engine, and so many do",
                limit="max_queued",
                retry_after_s=self._time_of_line_s(line),
            )
        if not line.waiting:
            self._order.append(line)
        line.waiting.append(ticket)

    def _start(self, ticket: _Ticket) -> None:
        ticket.line.num_running += 1
        self._num_running += 1
        ticket.admitted.set()

    def _end(self, ticket: _Ticket) -> None:
        line = ticket.line
        if ticket.admitted.is_set():
            line.num_running -= 1
            self._num_running -= 1
        else:
            self._leave_line(ticket)
        self._admit()

    def _leave_line(self, ticket: _Ticket) -> None:
        line = ticket.line
        if ticket in line.waiting:
            line.waiting.remove(ticket)
            self._close_if_empty(line)

    def _close_if_empty(self, line: _Line) -> None:
        if not line.waiting:
            line.deficit = 0.0
            self._order.remove(line)

    def _admit(self) -> None:
        now_s = self._clock()
        while self._order and self._num_running < self._capacity() and (line := self._next(now_s)) is not None:
            ticket = line.waiting.popleft()
            line.deficit -= ticket.num_tokens
            self._close_if_empty(line)
            self._start(ticket)

    def _next(self, now_s: float) -> _Line | None:
        """The line whose turn it is; None when the room left is kept for tenants that wait for nothing."""
        room = self._room(now_s)
        eligible = {line.tenant for line in self._order if room.admits(line)}
        if not eligible:
            return None
        while True:
            line = self._order[0]
            if line.tenant in eligible:
                if line.deficit >= line.waiting[0].num_tokens:
                    return line
                line.deficit += QUANTUM_TOKENS * line.share.weight
            self._order.rotate(-1)

    def _room(self, now_s: float) -> "_Room":
        capacity = self._capacity()
        recent = [(line, line.peak.value(now_s)) for line in self._lines.values()]
        weights = sum(line.share.weight for line, peak in recent if peak)
        kept = {}
        for line, peak in recent:
            wanted = min(peak, _fair_share(capacity, line.share.weight, weights)) - line.num_running
            if wanted > 0:
                kept[line.tenant] = wanted
        return _Room(capacity - self._num_running, kept, sum(kept.values()))

    def _forget_idle(self) -> None:
        now_s = self._clock()
        for line in [*self._lines.values()]:
            if line.is_idle and line.peak.value(now_s) == 0:
                del self._lines[line.tenant]

    def _time_of_line_s(self, line: _Line) -> float:
        """Seconds in which a full line would be served by the tenant's share of the engine, at least one."""
        now_s = self._clock()
        weights = sum(other.share.weight for other in self._lines.values() if other.peak.value(now_s))
        slots = max(_fair_share(self._capacity(), line.share.weight, weights), 1)
        return max(len(line.waiting) * self._mean_s / slots, 1.0)


def _fair_share(capacity: int, weight: float, weights: float) -> int:
    """Whole slots in proportion to a weight among the weights of all that asked lately."""
    return math.floor(capacity * weight / weights) if weights else capacity
