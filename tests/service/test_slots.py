"""Who may run in the engine. A pool of 4 sequences and 100 tokens, of which rollouts may have 3 and 70."""

import asyncio
from contextlib import suppress

import pytest

from service.slots import Capacity, Slot, SlotPool


@pytest.fixture
def pool() -> SlotPool:
    return SlotPool(Capacity(num_seqs=4, num_tokens=100), reserve=Capacity(num_seqs=1, num_tokens=30))


class Rollout:
    """A task that holds a slot until it is told to let go, or loses it."""

    def __init__(self, pool: SlotPool, num_tokens: int, entries: list["Rollout"]) -> None:
        self._entries = entries
        self._release = asyncio.Event()
        self.slot: Slot | None = None
        self.task = asyncio.create_task(self._hold(pool, num_tokens))

    async def _hold(self, pool: SlotPool, num_tokens: int) -> None:
        async with pool.rollout(num_tokens) as self.slot:
            self._entries.append(self)
            await self._release.wait()

    @property
    def preempted(self) -> bool:
        return self.slot is not None and self.slot.preempted.is_set()

    async def release(self) -> None:
        self._release.set()
        await self.task

    async def cancel(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


async def settle() -> None:
    """Let every task run as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def rollouts(pool: SlotPool, *sizes: int) -> tuple[list[Rollout], list[Rollout]]:
    """One task per size, and the list of those that entered, in order."""
    entries: list[Rollout] = []
    tasks = [Rollout(pool, size, entries) for size in sizes]
    await settle()
    return tasks, entries


async def test_rollouts_leave_the_reserved_sequences(pool: SlotPool) -> None:
    """Of 4 sequences 1 is reserved: the fourth of four small rollouts waits, and enters when one leaves."""
    tasks, entries = await rollouts(pool, 1, 1, 1, 1)
    assert entries == tasks[:3]
    assert pool.num_rollouts == 3
    await tasks[1].release()
    await settle()
    assert entries == tasks
    for task in (tasks[0], *tasks[2:]):
        await task.release()
    assert pool.num_rollouts == 0


async def test_rollouts_leave_the_reserved_tokens(pool: SlotPool) -> None:
    """Of 100 tokens 30 are reserved: 40 + 30 = 70 fit, one token more does not."""
    tasks, entries = await rollouts(pool, 40, 30, 1)
    assert entries == tasks[:2]
    for task in tasks:
        await task.cancel()


async def test_a_limit_holds_rollouts_back_beside_free_room(pool: SlotPool) -> None:
    """Of three that would fit one may enter; a raised limit lets the next in, and none stands for no limit."""
    pool.limit_rollouts(1)
    tasks, entries = await rollouts(pool, 1, 1, 1)
    assert entries == tasks[:1]
    pool.limit_rollouts(2)
    await settle()
    assert entries == tasks[:2]
    pool.limit_rollouts(None)
    await settle()
    assert entries == tasks
    for task in tasks:
        await task.release()


async def test_a_limit_of_none_at_all_lets_no_rollout_enter(pool: SlotPool) -> None:
    """Zero keeps even the first one out; those in flight finish."""
    tasks, _ = await rollouts(pool, 1)
    pool.limit_rollouts(0)
    more, entries = await rollouts(pool, 1)
    assert (entries, tasks[0].preempted, pool.num_rollouts) == ([], False, 1)
    for task in (*tasks, *more):
        await task.cancel()


async def test_a_lowered_limit_takes_slots_only_when_told(pool: SlotPool) -> None:
    """Three hold a slot: a limit of one leaves them theirs, and with ``evict`` the two newest lose theirs."""
    tasks, _ = await rollouts(pool, 1, 1, 1)
    pool.limit_rollouts(1)
    assert pool.num_rollouts == 3
    pool.limit_rollouts(1, evict=True)
    await settle()
    assert [task.preempted for task in tasks] == [False, True, True]
    assert (pool.num_rollouts, pool.num_preemptions) == (1, 2)
    for task in tasks:
        await task.cancel()


def test_free_and_queued_are_counted(pool: SlotPool) -> None:
    """Of 4 sequences 1 is reserved: beside two live requests one is free for rollouts; a fifth live request queues."""
    with pool.live(1), pool.live(1):
        assert (pool.num_free, pool.num_queued_live) == (1, 0)
        with pool.live(1), pool.live(1), pool.live(1):
            assert (pool.num_free, pool.num_queued_live) == (0, 1)
    assert (pool.num_free, pool.num_queued_live) == (3, 0)


async def test_live_requests_count_against_the_rollouts_room(pool: SlotPool) -> None:
    """With a live request of 50 tokens, 20 of the rollouts' 70 are left, and 2 of their 3 sequences."""
    with pool.live(50):
        tasks, entries = await rollouts(pool, 10, 11)
        assert entries == tasks[:1]
        assert (pool.num_live, pool.num_rollouts) == (1, 1)
    await settle()
    assert entries == tasks
    for task in tasks:
        await task.release()


async def test_live_request_within_the_reserve_disturbs_nobody(pool: SlotPool) -> None:
    """Three rollouts with 60 tokens and a live request with 40 fill the engine exactly: 4 sequences, 100 tokens."""
    tasks, _ = await rollouts(pool, 20, 20, 20)
    with pool.live(40):
        assert [task.preempted for task in tasks] == [False, False, False]
        assert pool.num_preemptions == 0
    for task in tasks:
        await task.release()


async def test_live_request_enters_at_once_and_preempts_the_newest_rollouts_for_tokens(pool: SlotPool) -> None:
    """60 + 80 tokens exceed 100: the newest rollout (20) is not enough, the one before it (20) makes 20 + 80 fit."""
    tasks, _ = await rollouts(pool, 20, 20, 20)
    with pool.live(80):
        assert [task.preempted for task in tasks] == [False, True, True]
        assert (pool.num_live, pool.num_rollouts, pool.num_preemptions) == (1, 1, 2)
    for task in tasks:
        await task.release()
    assert pool.num_rollouts == 0


async def test_live_request_preempts_for_a_sequence(pool: SlotPool) -> None:
    """Three rollouts and two live requests are five sequences for four: the newest rollout goes."""
    tasks, _ = await rollouts(pool, 1, 1, 1)
    with pool.live(1), pool.live(1):
        assert [task.preempted for task in tasks] == [False, False, True]
    for task in tasks:
        await task.release()


async def test_live_requests_are_never_refused(pool: SlotPool) -> None:
    """Beyond the engine's capacity live requests still enter: vLLM's own queue orders them."""
    with pool.live(90), pool.live(90):
        assert pool.num_live == 2


async def test_waiters_enter_in_the_order_of_asking(pool: SlotPool) -> None:
    """A small rollout does not overtake a large one that waits, even where it alone would fit."""
    tasks, entries = await rollouts(pool, 60, 40, 5)
    assert entries == tasks[:1]
    await tasks[0].release()
    await settle()
    assert entries == tasks
    for task in tasks[1:]:
        await task.release()


async def test_one_release_wakes_all_that_fit(pool: SlotPool) -> None:
    """70 tokens come free: of the waiting 30, 30 and 30 the first two enter, together 60."""
    tasks, entries = await rollouts(pool, 70, 30, 30, 30)
    await tasks[0].release()
    await settle()
    assert entries == tasks[:3]
    for task in tasks[1:]:
        await task.cancel()
    assert pool.num_rollouts == 0


async def test_cancelled_waiter_lets_those_behind_it_in(pool: SlotPool) -> None:
    """The first waiter blocks the queue; when it is cancelled, the next one that fits enters."""
    tasks, entries = await rollouts(pool, 60, 40, 5)
    await tasks[1].cancel()
    await settle()
    assert entries == [tasks[0], tasks[2]]
    for task in (tasks[0], tasks[2]):
        await task.release()
    assert pool.num_rollouts == 0


async def test_cancelled_holder_gives_its_slot_on(pool: SlotPool) -> None:
    """A holder that is cancelled leaves as one that is done does."""
    tasks, entries = await rollouts(pool, 70, 70)
    await tasks[0].cancel()
    await settle()
    assert entries == tasks
    await tasks[1].release()
    assert pool.num_rollouts == 0


async def test_waiter_cancelled_in_the_moment_it_is_admitted_leaks_nothing(pool: SlotPool) -> None:
    """The slot is given on although its task never ran with it."""
    tasks, entries = await rollouts(pool, 70, 70, 70)
    tasks[0]._release.set()
    await asyncio.sleep(0)  # the first leaves and admits the second, whose task has not run yet
    await tasks[1].cancel()
    await settle()
    assert entries == [tasks[0], tasks[2]]
    await tasks[2].release()
    assert pool.num_rollouts == 0


async def test_failing_live_request_leaves(pool: SlotPool) -> None:
    """An error inside gives the room back."""
    with pytest.raises(LookupError), pool.live(100):
        raise LookupError
    assert pool.num_live == 0
    tasks, entries = await rollouts(pool, 70)
    assert entries == tasks
    await tasks[0].release()


async def test_rollout_larger_than_all_room_runs_alone(pool: SlotPool) -> None:
    """A rollout of 90 tokens would never fit 70; it counts as 70 instead of waiting forever."""
    tasks, entries = await rollouts(pool, 90, 1)
    assert entries == tasks[:1]
    await tasks[0].release()
    await settle()
    assert entries == tasks
    await tasks[1].release()


@pytest.mark.parametrize("reserve", [Capacity(4, 1), Capacity(1, 100)])
def test_reserve_leaves_something(reserve: Capacity) -> None:
    """A reserve as large as the engine is a configuration in which no rollout ever runs."""
    with pytest.raises(ValueError, match="must be smaller"):
        SlotPool(Capacity(4, 100), reserve)
