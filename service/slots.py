"""Who may run in the engine: live requests always, rollouts in what is left.

vLLM's priorities order its waiting queue but never take a slot or a cache block from a running sequence. So the room
is kept here: rollouts stay below the engine's capacity minus a reserve, and a live request that finds no room takes it
from the newest rollouts, which are aborted and start again later. Below that, the controller sets how many rollouts
there may be (``limit_rollouts``): each one more makes every engine step a little longer.

Every change happens between two awaits, so a task that is cancelled while it waits or holds leaves nothing behind.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Capacity:
    """Sequences and KV-cache tokens."""

    num_seqs: int
    num_tokens: int


@dataclass(slots=True, eq=False)
class Slot:
    """A rollout's slot; ``preempted`` is set when it is lost."""

    num_tokens: int
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    preempted: asyncio.Event = field(default_factory=asyncio.Event)


class SlotPool:
    """Counts what runs. ``reserve`` is what rollouts never take."""

    def __init__(self, total: Capacity, reserve: Capacity) -> None:
        if reserve.num_seqs >= total.num_seqs or reserve.num_tokens >= total.num_tokens:
            raise ValueError(f"the reserve {reserve} must be smaller than the engine's capacity {total}")
        self._total = total
        self._shared = Capacity(total.num_seqs - reserve.num_seqs, total.num_tokens - reserve.num_tokens)
        self._num_live, self._live_tokens = 0, 0
        self._rollouts: list[Slot] = []
        self._waiting: deque[Slot] = deque()
        self._limit: int | None = None
        self.num_preemptions = 0

    @property
    def total(self) -> Capacity:
        """What the engine runs at once."""
        return self._total

    @property
    def num_live(self) -> int:
        return self._num_live

    @property
    def num_rollouts(self) -> int:
        """Rollouts that hold a slot."""
        return len(self._rollouts)

    @property
    def num_queued_live(self) -> int:
        """Live requests beyond what the engine runs at once: they wait in its queue."""
        return max(self._num_live - self._total.num_seqs, 0)

    @property
    def num_free(self) -> int:
        """Sequences that rollouts could have beside the live requests and the reserve, were there no limit."""
        return max(self._shared.num_seqs - self._num_live, 0)

    def limit_rollouts(self, limit: int | None, *, evict: bool = False) -> None:
        """Let at most ``limit`` rollouts hold a slot from now on; 0 lets none enter, None lifts the limit.

        Those that hold one already finish, or, with ``evict``, the newest beyond the limit lose theirs.
        """
        self._limit = limit
        while evict and limit is not None and len(self._rollouts) > limit:
            self._preempt_newest()
        self._admit()

    @contextmanager
    def live(self, num_tokens: int) -> Iterator[None]:
        """Enter at once; rollouts make room."""
        self._num_live += 1
        self._live_tokens += num_tokens
        self._make_room()
        try:
            yield
        finally:
            self._num_live -= 1
            self._live_tokens -= num_tokens
            self._admit()

    @asynccontextmanager
    async def rollout(self, num_tokens: int) -> AsyncIterator[Slot]:
        """Enter when there is room beside the reserve, strictly in the order of asking.

        A rollout larger than all of that room counts as all of it, and so runs alone.
        """
        slot = Slot(min(num_tokens, self._shared.num_tokens))
        self._waiting.append(slot)
        self._admit()
        try:
            await slot.entered.wait()
            yield slot
        finally:
            self._forget(slot)
            self._admit()

    def _admit(self) -> None:
        while self._waiting and self._has_room(self._waiting[0].num_tokens):
            slot = self._waiting.popleft()
            self._rollouts.append(slot)
            slot.entered.set()

    def _has_room(self, num_tokens: int) -> bool:
        return (
            (self._limit is None or len(self._rollouts) < self._limit)
            and self._num_live + len(self._rollouts) < self._shared.num_seqs
            and self._num_tokens() + num_tokens <= self._shared.num_tokens
        )

    def _make_room(self) -> None:
        while self._rollouts and (
            self._num_live + len(self._rollouts) > self._total.num_seqs or self._num_tokens() > self._total.num_tokens
        ):
            self._preempt_newest()

    def _preempt_newest(self) -> None:
        self._rollouts.pop().preempted.set()
        self.num_preemptions += 1

    def _forget(self, slot: Slot) -> None:
        """Drop a slot that is held, still waited for, or lost already."""
        if slot in self._rollouts:
            self._rollouts.remove(slot)
        elif slot in self._waiting:
            self._waiting.remove(slot)

    def _num_tokens(self) -> int:
        return self._live_tokens + sum(slot.num_tokens for slot in self._rollouts)
