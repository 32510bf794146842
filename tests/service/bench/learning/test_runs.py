"""Watching a run: it is stopped once when the budget is nearly used up, and its results are kept."""

from itertools import count

from service.bench.learning.budget import Budget
from service.bench.learning.runs import LearnControl, NodeRuns, Progress, RunSettings
from service.bench.node import BenchNode
from service.http.client import AdminClient

SETTINGS = RunSettings(
    languages=("de",),
    prompts_per_step=1,
    group_size=2,
    max_tokens=4,
    learning_rate=1e-4,
    exam_replies=1,
    rate=0.0,
)


class ShortRun:
    """Ends two looks after it was told to stop, or at its sixth look."""

    def __init__(self) -> None:
        self.num_looks = 0
        self.stopped_at: list[int] = []

    async def look(self) -> Progress:
        """See Watched.look."""
        self.num_looks += 1
        ended = self.num_looks >= min(6, *(at + 2 for at in self.stopped_at), 6)
        state = "stopped" if self.stopped_at else "succeeded"
        return Progress([], [], ended, state if ended else "running", None, published=3)

    async def stop(self) -> None:
        """See Watched.stop."""
        self.stopped_at.append(self.num_looks)


def runs(budget: Budget) -> NodeRuns:
    node = BenchNode("http://127.0.0.1:1", "tenant", "admin", None)
    control = LearnControl(node.url, node.admin_key)
    return NodeRuns(node, control, AdminClient(node.url, node.admin_key), SETTINGS, (), budget)


async def test_a_run_is_told_to_stop_once_when_the_reserve_is_reached() -> None:
    """30 s, one of which passes at each look: 30 - 1, 30 - 2 allow 18 and the margin of 10, 30 - 3 does not."""
    seconds = count(0)
    watched = ShortRun()
    progress = await runs(Budget(30.0, clock=lambda: float(next(seconds)))).finished(watched, reserve_s=18.0)
    assert watched.stopped_at == [3]
    assert (progress.state, progress.published) == ("stopped", 3)


async def test_a_run_with_time_enough_ends_by_itself() -> None:
    """Without a limit nothing is stopped."""
    watched = ShortRun()
    progress = await runs(Budget(None)).finished(watched, reserve_s=1e9)
    assert watched.stopped_at == []
    assert progress.state == "succeeded"
