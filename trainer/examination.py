"""The gate's work for one run: an exam that is frozen when the run begins, and what is asked of its versions.

    begin ──► exam, recital of the baseline ──► … ──► before a swap: check ──► judge, decide

Method ``adapter`` judges the baseline beside each candidate, method ``full`` before the first step, since afterwards
its weights are no longer served; that is trainer.promotion's. What the learner recites is compared with the policy that
the run began with.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from agent.episode import Episode
from agent.errors import GateRejected, TrainerFailed
from trainer.drift import Recital, drift, recite, recited
from trainer.evaluation import Evaluator, Exam
from trainer.gate_records import Drift
from trainer.graded import Judged
from trainer.plan import RunPlan
from trainer.ports import TrainerPort
from trainer.records import Evaluation

log = structlog.get_logger(__name__)

_NOT_RECITED = "no drift: the learner had not scored held-out replies before the run's first step"


@dataclass(frozen=True, slots=True)
class ExamStanding:
    """What a run that is resumed needs of its exam. Texts are not kept."""

    prompts: tuple[str, ...]
    """Digests of the prompts."""
    recital: Recital


class Examination:
    """Exam and recital of one run."""

    def __init__(self, evaluator: Evaluator, trainer: TrainerPort, plan: RunPlan) -> None:
        self._evaluator, self._trainer, self._plan = evaluator, trainer, plan
        self._exam: Exam | None = None
        self._recital: Recital | None = None

    @property
    def standing(self) -> ExamStanding | None:
        """None before the exam is set."""
        return None if self._exam is None else ExamStanding(self._exam.prompts, self._recital or Recital())

    async def set(self, frozen: ExamStanding | None = None) -> Exam:
        """Choose the prompts, or find those of an interrupted run again.

        Raises:
            GateRejected: there is no held-out prompt.
            StoreError: the journal could not be reached.
        """
        plan = self._plan
        self._exam = await self._evaluator.exam(
            plan.gate_languages,
            max_tokens=plan.max_tokens,
            seed=plan.seed,
            frozen=() if frozen is None else frozen.prompts,
        )
        self._recital = None if frozen is None else frozen.recital
        return self._exam

    async def recite(self) -> None:
        """Have the learner, whose weights are still the baseline's, score the exam's logged replies."""
        self._recital = await self._recite()

    async def check(self, version: int) -> None:
        """Before ``version`` goes live: on logged replies it is no further from the baseline than `tuning.gate.max_kl`.
        Without that limit nothing is computed.

        Raises:
            GateRejected: it is, in a language that the message names.
        """
        limit = self._evaluator.config.max_kl
        if limit is None:
            return
        moved = await self._drift() or {}
        for language, row in moved.items():
            if not row.kl <= limit:
                raise GateRejected(
                    f"{language}: version {version} moved {row.kl:.3f} nats per token from what the run began with, "
                    f"more than {limit:g}; it did not go live"
                )

    async def judge(self, version: int) -> Judged:
        """See Evaluator.judge."""
        return await self._evaluator.judge(self._exam or await self.set(), version)

    async def decide(self, candidate: Judged, baseline: Judged) -> Evaluation:
        """The decision about a candidate that is the learner's newest version."""
        exam = self._exam or await self.set()
        moved = await self._drift()
        return self._evaluator.verdict(
            exam,
            candidate,
            baseline,
            targets=self._plan.languages,
            drift=moved,
            notes=() if moved else (_NOT_RECITED,),
        )

    async def _drift(self) -> dict[str, Drift] | None:
        if not self._recital or not self._recital.logprobs:
            return None
        newest = await self._recite()
        return drift(self._replies, newest, self._recital) or None

    async def _recite(self) -> Recital:
        """Nothing when the learner cannot: what it says of logged replies is a report, and the exam decides."""
        try:
            return await recite(self._trainer, self._replies)
        except TrainerFailed as error:
            log.warning("held_out_replies_not_scored", reason=str(error))
            return Recital()

    @property
    def _replies(self) -> Sequence[Episode]:
        return recited(self._exam.episodes) if self._exam is not None else ()
