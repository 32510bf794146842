"""What becomes of the versions that one run makes, by method.

    adapter   a step's version gets a slot of its own, which no user sees; published, users are sent to it
    full      a step's version is what everybody gets at once; published, it is what a rollback goes back to

The tuning loop knows the Protocol alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import structlog

from agent.completion import BASE_VERSION
from agent.errors import ColoqError
from trainer.adapters import AdapterSlots
from trainer.evaluation import Evaluator
from trainer.examination import Examination, ExamStanding
from trainer.graded import Judged
from trainer.lineage import Lineage
from trainer.live import LiveWeights
from trainer.plan import RunPlan
from trainer.policy_folder import policy_folder
from trainer.publication import Publisher
from trainer.records import Evaluation, StepReport
from trainer.tenant_journal import TenantJournal

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run's versions stand between two steps."""

    version: int
    """The newest, which the optimizer's state belongs to."""
    parent: int
    """The last one published, or the one that the run began with."""
    baseline: Judged | None = None
    """Method ``full``: the grades of the policy that the run began with."""
    exam: ExamStanding | None = None
    """The run's held-out prompts, where it has a gate."""
    lineage: Lineage | None = None
    """Up to ``version``; None in a checkpoint of an older release."""

    @property
    def known_lineage(self) -> Lineage:
        """The lineage, which begins with ``version`` where nothing older is known."""
        return self.lineage or Lineage(self.version)


@dataclass(frozen=True, slots=True)
class Resumption:
    """What a run goes on from."""

    step: int
    standing: Standing
    state: Path
    """Folder of the optimizer's state."""
    published: frozenset[int]
    """Versions of the run that were published and activated; a newer one may have been published only."""
    steps: tuple[StepReport, ...] = ()
    """Reports of the steps that were taken."""
    claimed: Mapping[str, int] = field(default_factory=dict)
    """How often those steps have claimed each prompt, by its digest."""


class Promotion(Protocol):
    """One run's versions, from the one that it begins with to the last one published."""

    @property
    def version(self) -> int:
        """The newest version that can be sampled from."""
        ...

    @property
    def lineage(self) -> Lineage:
        """The run's policies up to ``version``."""
        ...

    @property
    def published(self) -> bool:
        """True when ``version`` is published, as it is before the first step."""
        ...

    async def begin(self) -> None:
        """Start the learner on what serves now."""
        ...

    async def resume(self, resumption: Resumption) -> None:
        """Start the learner where a run was interrupted, instead of ``begin``; its version can then be sampled from.

        A publication that was cut short is completed if the ledger has it, and otherwise as if it had not begun.

        Raises:
            TrainerFailed: the optimizer's state cannot be read.
            PublicationFailed, StoreError: a publication could not be completed.
        """
        ...

    @property
    def standing(self) -> Standing:
        """What a run needs of this one to go on."""
        ...

    def expect(self, version: int) -> None:
        """A step that makes ``version`` begins."""
        ...

    async def ready(self, version: int) -> None:
        """The step is done: make its version the one to sample from."""
        ...

    async def evaluate(self) -> Evaluation:
        """Judge the newest version on held-out prompts.

        Raises:
            GateRejected: there are none, or nothing could be graded.
        """
        ...

    async def publish(self, evaluation: Evaluation | None) -> None:
        """Publish the newest version; see Publisher.publish for what it raises."""
        ...

    async def abandon(self) -> None:
        """The run is over, however it ended: undo what was not published. Raises nothing of ours."""
        ...


StartPromotion = Callable[[str, RunPlan], Promotion]
"""Given a run's id and plan; ``promotions`` makes one."""


def promotions(placement: AdapterSlots | LiveWeights, publisher: Publisher, evaluator: Evaluator) -> StartPromotion:
    """Promotions of the method that ``placement``, which must be the publisher's, belongs to."""
    if isinstance(placement, LiveWeights):
        return partial(LivePromotion, placement, publisher, evaluator)
    return partial(AdapterPromotion, placement, publisher, evaluator)


class AdapterPromotion:
    """Method ``adapter``: candidates are slots; the newest replaces the one before unless that was published."""

    def __init__(
        self, slots: AdapterSlots, publisher: Publisher, evaluator: Evaluator, run_id: str, plan: RunPlan
    ) -> None:
        self._slots, self._publisher = slots, publisher
        self._run_id, self._plan = run_id, plan
        if plan.tenant is not None:
            evaluator = replace(evaluator, journal=TenantJournal(evaluator.journal, plan.tenant))
        self._examination = Examination(evaluator, publisher.trainer, plan)
        self.lineage = Lineage(publisher.version_of(plan.tenant))
        self._parent = self.version
        self._successor: int | None = None
        """The version of a step in progress; the learner may keep it and the engine hold it already."""

    @property
    def version(self) -> int:
        return self.lineage.version

    @property
    def published(self) -> bool:
        return self.version == self._parent

    async def begin(self) -> None:
        """See Promotion.begin. With the gate on, its prompts are chosen first."""
        if self._plan.gate:
            await self._examination.set()
        folder = None if self.version == BASE_VERSION else policy_folder(self._publisher.root, self.version)
        await self._publisher.trainer.begin(self._plan.learner, folder)
        if self._plan.gate:
            await self._examination.recite()

    async def resume(self, resumption: Resumption) -> None:
        """See Promotion.resume."""
        if self._plan.gate:
            await self._examination.set(resumption.standing.exam)
        version, parent = await _continued(self._publisher, resumption)
        self._successor = version if version != parent else None
        await self._publisher.trainer.resume(self._plan.learner, resumption.state, version)
        if version == parent:
            await self._slots.ensure(version)
        else:
            await self._slots.install(version)
        self.lineage, self._parent, self._successor = resumption.standing.known_lineage, parent, None

    @property
    def standing(self) -> Standing:
        """See Promotion.standing."""
        return Standing(self.version, self._parent, exam=self._examination.standing, lineage=self.lineage)

    def expect(self, version: int) -> None:
        """See Promotion.expect."""
        self._successor = version

    async def ready(self, version: int) -> None:
        """See Promotion.ready."""
        await self._slots.install(version)
        if not self.published:
            await self._slots.discard(self.version)
        self.lineage, self._successor = self.lineage.with_step(version), None

    async def evaluate(self) -> Evaluation:
        """See Promotion.evaluate. The baseline is what serves now."""
        candidate = await self._examination.judge(self.version)
        baseline = await self._examination.judge(self._publisher.version_of(self._plan.tenant))
        return await self._examination.decide(candidate, baseline)

    async def publish(self, evaluation: Evaluation | None) -> None:
        """See Promotion.publish."""
        await self._publisher.publish(
            self.version,
            parent=self._parent,
            run_id=self._run_id,
            evaluation=evaluation,
            tenant=self._plan.tenant,
        )
        self._parent = self.version

    async def abandon(self) -> None:
        """See Promotion.abandon."""
        newest = None if self.published else self.version
        for version in (newest, self._successor):
            if version is not None:
                await self._forget(version)

    async def _forget(self, version: int) -> None:
        """Free what a version holds. A failure here must not hide why the run ended."""
        try:
            await self._slots.discard(version)
        except ColoqError as error:
            log.warning("candidate_not_discarded", version=version, reason=str(error))


class LivePromotion:
    """Method ``full``: every step is live, and the gate judges it where it serves.

    Before a step goes live the learner scores logged replies with it (`tuning.gate.max_kl`); after the last one it
    answers the exam, and what does not pass is rolled back. The baseline is judged before the first step, for
    afterwards its weights are no longer served. It stays the baseline of the whole run, so that margins do not add up
    from one publication to the next.
    """

    def __init__(
        self, live: LiveWeights, publisher: Publisher, evaluator: Evaluator, run_id: str, plan: RunPlan
    ) -> None:
        self._live, self._publisher = live, publisher
        self._run_id, self._plan = run_id, plan
        self._examination = Examination(evaluator, publisher.trainer, plan)
        self.lineage = Lineage(publisher.active_version)
        self._parent = self.version
        self._baseline: Judged | None = None

    @property
    def version(self) -> int:
        return self.lineage.version

    @property
    def published(self) -> bool:
        return self.version == self._parent

    async def begin(self) -> None:
        """See Promotion.begin. With the gate on, the baseline is judged first."""
        self.lineage = Lineage(await self._live.begin(self._run_id))
        self._parent = self.version
        if self._plan.gate:
            await self._examination.set()
            self._baseline = await self._examination.judge(self.version)
        await self._publisher.trainer.begin(self._plan.learner, None)
        if self._plan.gate:
            await self._examination.recite()

    async def resume(self, resumption: Resumption) -> None:
        """See Promotion.resume. The baseline is judged again where an older release has kept too little of it."""
        version, parent = await _continued(self._publisher, resumption)
        self.lineage = Lineage(await self._live.begin(self._run_id))
        self._parent = self.version
        if self._plan.gate:
            await self._examination.set(resumption.standing.exam)
            kept = resumption.standing.baseline
            self._baseline = kept if kept and kept.replies else await self._examination.judge(self.version)
        await self._publisher.trainer.resume(self._plan.learner, resumption.state, version)
        if self.version != version:
            await self._live.publish(self._run_id, version)
        self.lineage, self._parent = resumption.standing.known_lineage, parent

    @property
    def standing(self) -> Standing:
        """See Promotion.standing."""
        return Standing(self.version, self._parent, self._baseline, self._examination.standing, self.lineage)

    def expect(self, version: int) -> None:
        """See Promotion.expect. The step's result is the learner's own, and nothing is to be freed."""

    async def ready(self, version: int) -> None:
        """See Promotion.ready. Users get the version too, unless it has moved too far.

        Raises:
            GateRejected: see Examination.check.
        """
        if self._plan.gate:
            await self._examination.check(version)
        await self._live.publish(self._run_id, version)
        self.lineage = self.lineage.with_step(version)

    async def evaluate(self) -> Evaluation:
        """See Promotion.evaluate. The baseline is what the run began with."""
        baseline = self._baseline or await self._examination.judge(self.version)
        return await self._examination.decide(await self._examination.judge(self.version), baseline)

    async def publish(self, evaluation: Evaluation | None) -> None:
        """See Promotion.publish."""
        await self._publisher.publish(self.version, parent=self._parent, run_id=self._run_id, evaluation=evaluation)
        self._parent = self.version

    async def abandon(self) -> None:
        """See Promotion.abandon. Users get the last good version back."""
        try:
            await self._live.release(self._run_id)
        except ColoqError as error:
            log.error("weights_not_rolled_back", version=self.version, to=self._parent, reason=str(error))


async def _continued(publisher: Publisher, resumption: Resumption) -> tuple[int, int]:
    """Newest version and parent of a run that is resumed; its last publication is completed if it was recorded."""
    version = resumption.standing.version
    if not await publisher.is_published(version):
        await publisher.drop_unrecorded(version)
        return version, resumption.standing.parent
    if version not in resumption.published:
        await publisher.complete(version)
    return version, version
