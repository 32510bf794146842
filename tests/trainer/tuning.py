"""A whole tuning loop over fakes: journal, engine, judge, trainer, sink and ledger."""

import asyncio
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType

from agent.completion import Completion
from agent.config import LanguageSettings, TenantSettings
from agent.contract import LanguageContract
from agent.episode import Episode
from agent.fakes import CharEncoder, FakeEngine, FixedDetector, MemoryJournal
from agent.ports import GenerateRequest, Priority
from rewards.config import RewardsConfig
from rewards.fakes import FakeRewardModel
from rewards.panel import Panel, build_panel
from rewards.score import Sample, Ungradable
from tests.only_parts import only
from trainer.adapters import AdapterSlots
from trainer.checkpoint import Checkpoints
from trainer.claim_log import ClaimLog
from trainer.config import GateConfig, TuningConfig
from trainer.evaluation import Evaluator
from trainer.fakes import FakeAdmission, FakeSink, FakeTrainer, MemoryLedger
from trainer.live import LiveWeights
from trainer.loop import TuningLoop
from trainer.parity import ParityProbe
from trainer.policy_folder import policy_folder
from trainer.promotion import promotions
from trainer.publication import Publisher
from trainer.rollout import RolloutSampler
from trainer.run_records import RunRecords
from trainer.runs import TuningRuns

CONTRACT = LanguageContract(FixedDetector({"satz": "de", "zdanie": "pl", "sentence": "en"}))
CONFIG = TuningConfig(
    steps=3, prompts_per_step=2, group_size=2, max_tokens=64, gate=GateConfig(enabled=False, num_prompts=4)
)
Judge = Callable[[Sample], float | Ungradable]


def panel_of(judge: Judge) -> Panel:
    """A panel with one judge, which a user's own package brings."""
    module = ModuleType("plugged_into_trainer_tests")
    module.make = lambda: FakeRewardModel(judge)  # type: ignore[attr-defined]  # modules have whatever is set
    sys.modules[module.__name__] = module
    try:
        config = RewardsConfig(weights=only(fake=1.0), extra={"fake": f"{module.__name__}:make"})
        tenant = TenantSettings(id="acme", languages={"de": LanguageSettings()})
        return build_panel(config, [tenant], CONTRACT)
    finally:
        del sys.modules[module.__name__]


def by_seed(request: GenerateRequest) -> str:
    """Siblings that differ: their seeds do."""
    return f"a{request.sampling.seed}"


def even_is_better(sample: Sample) -> float:
    """1 for texts of even seeds, 0 for odd ones: one of each in a group of two."""
    return float(int(sample.text[1:]) % 2 == 0)


class UnendingRollouts(FakeEngine):
    """Rollouts of ``version`` go on until they are cancelled; they write into ``events`` when they begin and end."""

    def __init__(self, version: int, events: list[str]) -> None:
        super().__init__(by_seed)
        self._unending, self._events = version, events
        self.num_running = 0

    async def generate(self, request: GenerateRequest) -> Completion:
        """See Engine.generate."""
        if request.priority is not Priority.ROLLOUT or request.policy_version != self._unending:
            return await super().generate(request)
        self._events.append(f"rollout {self._unending}")
        self.num_running += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.num_running -= 1
            self._events.append(f"cancelled {self._unending}")
        raise AssertionError("nobody sets the event")


class Node:
    """What a node wires, over fakes that write into one list of events."""

    def __init__(
        self,
        root: Path,
        episodes: Sequence[Episode],
        *,
        trainer: FakeTrainer | None = None,
        reply: Callable[[GenerateRequest], str] = by_seed,
        judge: Judge = even_is_better,
        held_out_share: float = 0.0,
        config: TuningConfig = CONFIG,
        languages: Sequence[str] = ("de", "pl"),
    ) -> None:
        self.trainer = trainer or FakeTrainer()
        self.events = self.trainer.events
        self.sink = FakeSink(events=self.events)
        self.ledger = MemoryLedger(events=self.events)
        self.admission = FakeAdmission()
        self.engine = FakeEngine(reply)
        self.journal = MemoryJournal(episodes, held_out_share=held_out_share)
        folder_of = partial(policy_folder, root)
        self.slots = AdapterSlots(self.trainer, self.sink, capacity=4, folder_of=folder_of)
        self.live = LiveWeights(self.trainer, self.sink, folder_of=folder_of)
        placement = self.live if config.method == "full" else self.slots
        probe = ParityProbe(self.engine, self.trainer, CharEncoder(), max_mean=config.parity_mean)
        self.publisher = Publisher(self.trainer, placement, self.sink, self.ledger, probe, root, "tiny")
        sampler, panel = RolloutSampler(self.engine), panel_of(judge)
        evaluator = Evaluator(
            journal=self.journal,
            sampler=sampler,
            panel=panel,
            admission=self.admission,
            second_opinion=CONTRACT,
            temperature=0.7,
            config=config.gate,
        )
        claims = ClaimLog(self.journal)
        self.loop = TuningLoop(
            journal=claims,
            sampler=sampler,
            panel=panel,
            trainer=self.trainer,
            ledger=self.ledger,
            start_promotion=promotions(placement, self.publisher, evaluator),
            admission=self.admission,
        )
        self.checkpoints = Checkpoints(root / "runs")
        self.records = RunRecords(self.checkpoints, claims, "tiny")
        self.runs = TuningRuns(self.loop, self.ledger, config, languages, records=self.records)

    def happened(self, *methods: str) -> list[str]:
        """Events of these methods, in order."""
        return [event for event in self.events if event.partition(" ")[0] in methods]
