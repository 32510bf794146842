"""Rollouts that are old on purpose: which version they come from, how old they say they are, what keeps a slot."""

import asyncio
from dataclasses import replace
from pathlib import Path

from agent.fakes import FakeEngine
from service.bench.learning.trail import Trail, TrailingPromotion, TrailingSampler
from tests.trainer.samples import episode
from tests.trainer.tuning import CONFIG, CONTRACT, Node, by_seed
from trainer.config import GateConfig
from trainer.evaluation import Evaluator
from trainer.lineage import Lineage
from trainer.loop import RunHooks
from trainer.plan import RunPlan
from trainer.promotion import Promotion, Standing
from trainer.records import Evaluation, RunRequest, StepReport


class Recorded:
    """What a run reported."""

    def __init__(self) -> None:
        self.steps: list[StepReport] = []
        self.published: list[int] = []

    async def on_step(self, report: StepReport) -> None:
        self.steps.append(report)

    async def on_published(self, version: int) -> None:
        self.published.append(version)

    async def ignore(self, what: Evaluation | Standing) -> None:
        """Neither gate nor checkpoints."""


async def run_behind(lag: int, root: Path) -> tuple[Node, Recorded, list[int]]:
    """Four steps with rollouts ``lag`` steps behind; also the versions that rollouts came from, in order."""
    node, recorded = Node(root, [episode(number) for number in range(1, 9)]), Recorded()
    config = CONFIG.model_copy(update={"max_staleness": lag, "parity_mean": 10.0})
    plan = RunPlan.of(RunRequest(steps=4, gate=False), config, ("de",))
    engine = FakeEngine(by_seed)
    trail = Trail(lag, node.publisher.active_version)
    evaluator = Evaluator(node.journal, node.loop.sampler, node.loop.panel, node.admission, CONTRACT, 1.0, GateConfig())

    def start(run_id: str, plan: RunPlan) -> Promotion:
        return TrailingPromotion(trail, node.slots, node.publisher, evaluator, run_id, plan)

    loop = replace(node.loop, sampler=TrailingSampler(engine, trail), start_promotion=start)
    hooks = RunHooks(recorded.on_step, recorded.ignore, recorded.on_published, asyncio.Event())
    await loop.run("run", plan, hooks)
    sources = [request.policy_version for request in engine.requests]
    return node, recorded, [version for version in dict.fromkeys(sources) if version is not None]


def test_a_trail_falls_behind_until_it_is_as_old_as_asked() -> None:
    """Lag 2 from version 0, versions 5, 6, 7: sources 0, 0, 0, 5; what is passed is given back once."""
    trail = Trail(2, 0)
    assert (trail.source, trail.age) == (0, 0)
    assert trail.add(5) is None
    assert trail.add(6) is None
    assert (trail.source, trail.age) == (0, 2)
    assert trail.add(7) == 0
    assert (trail.source, trail.age) == (5, 2)
    assert trail.forget() == [5, 6]


async def test_a_lag_of_zero_samples_from_the_newest_version(tmp_path: Path) -> None:
    """Versions 0 to 3 are sampled from in turn, nothing is stale, and the last one is published."""
    node, recorded, sources = await run_behind(0, tmp_path)
    assert sources == [0, 1, 2, 3]
    assert [report.staleness_max for report in recorded.steps] == [0, 0, 0, 0]
    assert recorded.published == [4]
    assert node.sink.active_version == 4


async def test_a_lag_of_two_samples_from_versions_two_steps_old(tmp_path: Path) -> None:
    """Steps begin with 0, 1, 2, 3 and sample from 0, 0, 0, 1: ages 0, 1, 2, 2, all admitted and trained on."""
    node, recorded, sources = await run_behind(2, tmp_path)
    assert sources == [0, 1]
    assert [report.staleness_max for report in recorded.steps] == [0, 1, 2, 2]
    assert all("stale" not in report.dropped for report in recorded.steps)
    assert node.slots.installed == (4,)


async def test_a_run_that_begins_late_is_not_older_than_it_is(tmp_path: Path) -> None:
    """From version 0, the run's own versions begin with 11: rollouts from 0 in its second step are one step old."""
    trail = Trail(1, 0)
    trail.add(11)
    groups = await TrailingSampler(FakeEngine(by_seed), trail).siblings(
        [episode(1)], version=11, group_size=2, sampling=RunPlan.of(RunRequest(), CONFIG, ()).sampling(1), label="x"
    )
    assert [Lineage(0, (11,)).staleness(completion.versions) for completion in groups[0]] == [1, 1]
