"""Rollouts from a policy that is a given number of steps old, on purpose.

    step n begins with version v(n-1) ─► siblings from v(n-1-lag) ─► step ─► v(n)

The versions that are still to be sampled from keep their adapter slots. In the run's first steps there is no version so
old: they sample from the oldest one, which the run began with. Nothing of a node's own runs is changed.
"""

from collections.abc import Sequence

from agent.completion import Completion, Sampling
from agent.episode import Episode
from agent.ports import Engine
from trainer.adapters import AdapterSlots
from trainer.evaluation import Evaluator
from trainer.plan import RunPlan
from trainer.promotion import AdapterPromotion
from trainer.publication import Publisher
from trainer.rollout import RolloutSampler


class Trail:
    """The versions of one run that rollouts may still need, the oldest first."""

    def __init__(self, lag: int, first: int) -> None:
        """``first`` is what the run begins with."""
        self._lag = lag
        self._versions = [first]

    @property
    def source(self) -> int:
        """The version that rollouts come from now."""
        return self._versions[0]

    @property
    def age(self) -> int:
        """How many steps it is older than the newest one."""
        return len(self._versions) - 1

    def add(self, version: int) -> int | None:
        """A step has made ``version``; returns the one that no rollout will need any more, if any."""
        self._versions.append(version)
        return self._versions.pop(0) if self.age > self._lag else None

    def forget(self) -> list[int]:
        """The run is over: all versions that were kept, but the newest."""
        *old, newest = self._versions
        self._versions = [newest]
        return old


class TrailingSampler(RolloutSampler):
    """Samples from the trail's source, whatever version is asked for."""

    def __init__(self, engine: Engine, trail: Trail) -> None:
        super().__init__(engine)
        self._trail = trail

    async def siblings(
        self, episodes: Sequence[Episode], *, version: int, group_size: int, sampling: Sampling, label: str
    ) -> list[tuple[Completion, ...]]:
        """See RolloutSampler.siblings."""
        return await super().siblings(
            episodes, version=self._trail.source, group_size=group_size, sampling=sampling, label=label
        )


class TrailingPromotion(AdapterPromotion):
    """Method ``adapter`` with slots for the versions of a trail."""

    def __init__(
        self,
        trail: Trail,
        slots: AdapterSlots,
        publisher: Publisher,
        evaluator: Evaluator,
        run_id: str,
        plan: RunPlan,
    ) -> None:
        super().__init__(slots, publisher, evaluator, run_id, plan)
        self._trail = trail
        self._first = self.version

    async def ready(self, version: int) -> None:
        """See Promotion.ready. The version before stays while rollouts need it."""
        await self._slots.install(version)
        self.lineage, self._successor = self.lineage.with_step(version), None
        passed = self._trail.add(version)
        if passed is not None and passed != self._first:
            await self._slots.discard(passed)

    async def abandon(self) -> None:
        """See Promotion.abandon."""
        for version in self._trail.forget():
            if version != self._first:
                await self._forget(version)
        await super().abandon()
