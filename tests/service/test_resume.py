"""A run that is killed and resumed is the run that was not killed: real learner, real loop, real checkpoints.

The kill is a run that stops for ever at a chosen moment; what a node finds after it is a copy, taken at that moment, of
everything that outlives a process: the data folder, the ledger and the journal. Replies are sampled from the learner's
own model, so that a weight that differs in one bit makes another run.
"""

import asyncio
import copy
import os
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from structlog.testing import capture_logs
from torch import Tensor

from agent.completion import Completion, FinishReason, VersionSpan
from agent.episode import Episode
from agent.fakes import MemoryJournal
from agent.ports import Claim, GenerateRequest
from agent.selection import Selection
from rewards.score import Sample, Ungradable
from service.engine_trainer import EngineTrainer
from tests.trainer.samples import completion, episode, tiny_llama
from tests.trainer.tuning import CONTRACT, panel_of
from trainer import messages
from trainer.adapters import AdapterSlots
from trainer.checkpoint import Checkpoints
from trainer.claim_log import ClaimLog
from trainer.config import AdapterConfig, GateConfig, TuningConfig
from trainer.evaluation import Evaluator
from trainer.fakes import FakeAdmission, FakeSink, MemoryLedger
from trainer.learner import Learner
from trainer.live import LiveWeights
from trainer.loop import TuningLoop
from trainer.parity import ParityProbe
from trainer.policy_folder import policy_folder, read_model, read_policy
from trainer.promotion import promotions
from trainer.publication import Publisher
from trainer.records import PolicyRecord, RunRequest, RunState, RunStatus, StepReport
from trainer.rollout import RolloutSampler
from trainer.run_records import RunRecords
from trainer.runs import TuningRuns
from trainer.thread import LearnerThread

EPISODES = [episode(number, language) for language in ("de", "pl") for number in range(1, 9)]
SIBLINGS = tuple(completion(ids, text=" ".join(map(str, ids))) for ids in ((1, 1, 1, 4), (9, 9, 9, 2)))
LOGGED = [episode(number, language, siblings=SIBLINGS) for language in ("de", "pl") for number in range(1, 9)]
"""Requests that asked for two texts of the untuned model: groups as they are, one of small ids and one of large."""
CONFIG = TuningConfig(
    steps=4,
    prompts_per_step=2,
    group_size=3,
    max_tokens=4,
    publish_every=2,
    learning_rate=0.02,
    parity_mean=10.0,
    adapter=AdapterConfig(rank=8, alpha=16.0, target_modules=("q_proj", "v_proj", "down_proj")),
    gate=GateConfig(num_prompts=3, margin=1e9),
)
FULL = CONFIG.model_copy(update={"method": "full", "learning_rate": 1e-3, "checkpoint_every": 1})
STRIDE = int(os.environ.get("COLOQ_TEST_KILL_STRIDE", "7"))
"""Every so many moments is tried; 1 tries all, which takes minutes."""
NUM_MOMENTS = {"adapter": 72, "full": 78}
"""Moments of a run that is not killed, by method. Before the second, which is 1, the ledger knows of no run."""
Passing = Callable[[str], Awaitable[None]]


async def _go_on(moment: str) -> None:
    """Nothing is killed."""


class Lives:
    """Counts the moments of a run, and stops it for ever at the chosen one: whatever of it comes to a moment later,
    such as a draw that goes on beside a publication, stops there."""

    def __init__(self, kill_at: int | None = None) -> None:
        self.moments: list[str] = []
        self.killed = asyncio.Event()
        self._kill_at = kill_at

    async def __call__(self, moment: str) -> None:
        self.moments.append(moment)
        if self._kill_at is not None and len(self.moments) > self._kill_at:
            self.killed.set()
            await asyncio.Event().wait()


class Engine:
    """The engine process: a learner's thread behind worker calls, adapter slots by number, replies by the model."""

    def __init__(self, passing: Passing) -> None:
        self.model = tiny_llama()
        self.thread = LearnerThread(Learner(self.model, base_model="tiny"))
        self.installed: list[int] = []
        self._passing = passing

    async def answered(self, ticket: int, within_s: float) -> None:
        await asyncio.sleep(0.002)

    async def call(self, method: str, *args: Any) -> Any:
        match method:
            case "coloq_submit":
                await self._passing(type(messages.decode_command(args[0])).__name__)
                return self.thread.submit(messages.decode_command(args[0]))
            case "coloq_poll":
                answer = self.thread.poll(args[0])
                if answer is None:
                    return None
                await self._passing("answered")
                return messages.encode(answer)
            case "coloq_install":
                await self._passing("install")
                assert args[0] in self.thread.kept
                assert args[0] not in self.installed
                self.installed.append(args[0])
            case "coloq_remove":
                self.installed = [version for version in self.installed if version != args[0]]
            case "coloq_publish_live":
                await self._passing("publish_live")
                self.thread.publish_live(args[0])
                return 0.0
            case "coloq_restore_live":
                self.thread.restore_live(args[0])
        return None

    async def generate(self, request: GenerateRequest) -> Completion:
        """Sample from the learner's newest weights, with the request's own seed."""
        generator = torch.Generator().manual_seed(request.sampling.seed or 0)
        ids = list(request.prompt_token_ids)
        logprobs = []
        for _ in range(request.sampling.max_tokens):
            with torch.no_grad():
                row = torch.log_softmax(self.model(input_ids=torch.tensor([ids])).logits[0, -1], dim=0)
            ids.append(int(torch.multinomial(row.exp(), 1, generator=generator)))
            logprobs.append(float(row[ids[-1]]))
        token_ids = tuple(ids[len(request.prompt_token_ids) :])
        version = request.policy_version or 0
        return Completion(
            text=" ".join(map(str, token_ids)),
            prompt_token_ids=request.prompt_token_ids,
            token_ids=token_ids,
            logprobs=tuple(logprobs),
            sampling=request.sampling,
            finish_reason=FinishReason.LENGTH,
            versions=VersionSpan(version, version),
        )


class Encoder:
    """The parity probe's prompts as ids that the tiny model has."""

    def encode(self, system: str, user: str) -> tuple[int, ...]:
        return (3, 1 + len(user) % 40)


class Journal(MemoryJournal):
    """A journal whose calls are moments. Not settled is abandoned: it is handed out again when the process is gone."""

    passing: Passing = staticmethod(_go_on)

    async def claim(
        self, languages: Sequence[str], num_prompts: int, *, seed: int, selection: Selection | None = None
    ) -> list[Claim]:
        claims = await super().claim(languages, num_prompts, seed=seed, selection=selection)
        await self.passing("claimed")
        return claims

    async def settle(self, claims: Sequence[Claim]) -> None:
        await self.passing("settle")
        await super().settle(claims)


class Books(MemoryLedger):
    """A ledger whose calls are moments, before and after."""

    passing: Passing = staticmethod(_go_on)

    async def next_version(self) -> int:
        version = await super().next_version()
        await self.passing("next_version")
        return version

    async def save_run(self, status: RunStatus) -> None:
        await self.passing("save_run")
        await super().save_run(status)

    async def record(self, policy: PolicyRecord) -> None:
        await self.passing("record")
        await super().record(policy)

    async def set_active_version(self, version: int) -> None:
        await self.passing("set_active")
        await super().set_active_version(version)
        await self.passing("activated")

    async def close_interrupted(self) -> None:
        """As service.ledger.Ledger does at a start."""
        for run in await self.runs():
            if not run.state.final:
                await MemoryLedger.save_run(self, replace(run, state=RunState.INTERRUPTED))


def small_ids(sample: Sample) -> float | Ungradable:
    """Of four ids up to 47, small ones are better; some sums cannot be graded, so that some draws are in vain."""
    total = sum(map(int, sample.text.split()))
    return Ungradable("by chance", "fake@1") if total % 5 < 2 else 1 - total / (4 * 47)


def _journal(episodes: Sequence[Episode]) -> Journal:
    return Journal(list(episodes), held_out_share=0.3)


@dataclass
class Disk:
    """What outlives a process."""

    root: Path
    """A folder that is made."""
    journal: Journal
    ledger: Books = field(default_factory=Books)

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)

    def copied(self, root: Path) -> "Disk":
        """As a power cut at this moment leaves it."""
        _copy(self.root, root)
        self.journal.passing = self.ledger.passing = _go_on  # of the life that ended
        disk = Disk(root, copy.deepcopy(self.journal), copy.deepcopy(self.ledger))
        disk.journal.restart()
        return disk


def _copy(folder: Path, copy: Path) -> None:
    """Copy a folder in which threads of the life that ended may still be moving files; they come to an end."""
    while True:
        try:
            shutil.copytree(folder, copy)
        except (shutil.Error, FileNotFoundError):
            shutil.rmtree(copy, ignore_errors=True)
        else:
            return


class Node:
    """A node with one engine process, from its start to its death."""

    def __init__(self, disk: Disk, config: TuningConfig, passing: Passing = _go_on, base_model: str = "tiny") -> None:
        self.disk = disk
        disk.journal.passing = disk.ledger.passing = passing  # each life has its own
        self.engine = Engine(passing)
        trainer = EngineTrainer(self.engine)
        sink, admission = FakeSink(), FakeAdmission()
        policies = disk.root / "policies"
        folder_of = partial(policy_folder, policies)
        placement: AdapterSlots | LiveWeights = (
            LiveWeights(trainer, sink, folder_of=folder_of)
            if config.method == "full"
            else AdapterSlots(trainer, sink, capacity=6, folder_of=folder_of)
        )
        probe = ParityProbe(self.engine, trainer, Encoder(), max_mean=config.parity_mean)
        self.publisher = Publisher(trainer, placement, sink, disk.ledger, probe, policies, base_model)
        sampler, panel = RolloutSampler(self.engine), panel_of(small_ids)
        evaluator = Evaluator(
            journal=disk.journal,
            sampler=sampler,
            panel=panel,
            admission=admission,
            second_opinion=CONTRACT,
            temperature=1.0,
            config=config.gate,
        )
        claims = ClaimLog(disk.journal)
        loop = TuningLoop(
            journal=claims,
            sampler=sampler,
            panel=panel,
            trainer=trainer,
            ledger=disk.ledger,
            start_promotion=promotions(placement, self.publisher, evaluator),
            admission=admission,
        )
        self.checkpoints = Checkpoints(disk.root / "runs")
        records = RunRecords(self.checkpoints, claims, base_model)
        self.runs = TuningRuns(loop, disk.ledger, config, ("de", "pl"), records=records)

    async def start(self) -> None:
        await self.disk.ledger.close_interrupted()
        await self.publisher.restore()
        await self.runs.pick_up()

    async def ended(self, run_id: str) -> RunStatus:
        async with asyncio.timeout(60):
            while not (status := await self.runs.status(run_id)).state.final:  # noqa: ASYNC110 - as clients do
                await asyncio.sleep(0.002)
        return status

    def policies(self) -> list[dict[str, Tensor]]:
        """The published weights, oldest first."""
        folders = sorted((self.disk.root / "policies").iterdir(), key=lambda path: int(path.name[1:]))
        is_full = (folders[0] / "model.safetensors").exists()
        return [dict(read_model(folder)) if is_full else read_policy(folder)[0] for folder in folders]


@dataclass(frozen=True)
class Outcome:
    """What a run did, without clocks."""

    status: RunStatus
    steps: list[StepReport]
    policies: list[dict[str, Tensor]]


def _outcome(node: Node, status: RunStatus) -> Outcome:
    """Version numbers are left out: a step that was begun twice has taken two."""
    steps = [replace(s, version=0, rollout_s=0.0, score_s=0.0, train_s=0.0, install_s=0.0) for s in status.steps]
    published = set(status.published)
    assert published == {int(path.name[1:]) for path in (node.disk.root / "policies").iterdir()}
    return Outcome(status, steps, node.policies())


def _assert_same(ours: Outcome, theirs: Outcome) -> None:
    assert ours.status.state is theirs.status.state is RunState.SUCCEEDED
    assert ours.steps == theirs.steps
    torch.testing.assert_close(ours.policies, theirs.policies, rtol=0, atol=0)


async def _uninterrupted(
    root: Path, config: TuningConfig, passing: Passing = _go_on, *, episodes: Sequence[Episode] = EPISODES
) -> Outcome:
    node = Node(Disk(root, _journal(episodes)), config, passing)
    await node.start()
    return _outcome(node, await node.ended((await node.runs.start(RunRequest(seed=3))).id))


async def _nothing(disk: Disk) -> None:
    """No time passes between the kill and the next start."""


async def _killed_and_resumed(
    tmp_path: Path,
    config: TuningConfig,
    kill_at: int,
    *,
    meanwhile: Callable[[Disk], Awaitable[None]] = _nothing,
    episodes: Sequence[Episode] = EPISODES,
) -> Outcome:
    """What a run came to that was killed at a moment and resumed on a copy of what outlived it."""
    lives = Lives()
    first = Node(Disk(tmp_path / "first", _journal(episodes)), config, lives)
    await first.start()
    lives._kill_at = len(lives.moments) + kill_at
    running = asyncio.create_task(first.runs.start(RunRequest(seed=3)))
    await asyncio.wait_for(lives.killed.wait(), 60)
    disk = first.disk.copied(tmp_path / "second")
    lives._kill_at = None  # what is left of the first life comes to its end
    running.cancel()
    await first.runs.close()
    await meanwhile(disk)
    second = Node(disk, config)
    await second.start()
    (run,) = await second.runs.list()
    status = await second.ended((await second.runs.resume(run.id)).id)
    async with asyncio.timeout(10):
        while list((tmp_path / "second" / "runs").glob("*")):  # noqa: ASYNC110 - deleted once the end is recorded
            await asyncio.sleep(0.005)
    return _outcome(second, status)


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Runs that nobody killed, by method."""
    root = tmp_path_factory.mktemp("baseline")
    return {config.method: asyncio.run(_uninterrupted(root / config.method, config)) for config in (CONFIG, FULL)}


@pytest.mark.parametrize("kill_at", range(1, NUM_MOMENTS["adapter"], STRIDE))
async def test_an_adapter_run_that_is_killed_anywhere_equals_one_that_is_not(
    tmp_path: Path, baseline: dict[str, Outcome], kill_at: int
) -> None:
    """Reports and published weights are the same to the last bit, and nothing is left of the checkpoints."""
    _assert_same(await _killed_and_resumed(tmp_path, CONFIG, kill_at), baseline["adapter"])


@pytest.mark.parametrize("kill_at", range(1, NUM_MOMENTS["full"], STRIDE))
async def test_a_full_run_that_is_killed_anywhere_equals_one_that_is_not(
    tmp_path: Path, baseline: dict[str, Outcome], kill_at: int
) -> None:
    """As an adapter's; what served before it is the gate's baseline to the end."""
    _assert_same(await _killed_and_resumed(tmp_path, FULL, kill_at), baseline["full"])


async def test_a_damaged_checkpoint_costs_a_step_and_changes_nothing(
    tmp_path: Path, baseline: dict[str, Outcome]
) -> None:
    """Killed in the fourth step, with the third's checkpoint damaged: both are taken again, on the same prompts."""

    async def damage(disk: Disk) -> None:
        (state,) = disk.root.glob("runs/*/step-3-*/optimizer.safetensors")
        state.write_bytes(state.read_bytes()[:-1])

    with capture_logs() as logs:
        outcome = await _killed_and_resumed(tmp_path, CONFIG, NUM_MOMENTS["adapter"] - 22, meanwhile=damage)
    assert [log["checkpoint"].startswith("step-3-") for log in logs if log["event"] == "checkpoint_damaged"] == [True]
    assert outcome.status.resumed_after == (2,)
    _assert_same(outcome, baseline["adapter"])


async def test_prompts_that_came_meanwhile_change_no_draw_that_was_made(
    tmp_path: Path, baseline: dict[str, Outcome]
) -> None:
    """Killed in its second step, whose prompts were claimed: it is taken on them, though a tenant who goes first has
    sent prompts since. Those come into the third step, which is therefore another one."""

    async def send(disk: Disk) -> None:
        for number in range(1, 9):
            sent = episode(number, "de")
            await disk.journal.append(replace(sent, id=f"new-{number}", brief=replace(sent.brief, tenant="aaa")))

    outcome = await _killed_and_resumed(tmp_path, CONFIG, 17, meanwhile=send)
    assert outcome.status.resumed_after == (1,)
    assert outcome.steps[:2] == baseline["adapter"].steps[:2]
    assert outcome.steps[2] != baseline["adapter"].steps[2]


@pytest.mark.parametrize("config", [CONFIG, FULL], ids=["adapter", "full"])
async def test_a_step_that_was_begun_twice_makes_logged_replies_no_older(tmp_path: Path, config: TuningConfig) -> None:
    """Killed in its second step, whose version number is used up: in the third the untuned model's replies are two
    steps old, which is just young enough; in the fourth they are too old, as in a run that nobody killed."""
    strict = config.model_copy(update={"max_staleness": 2})
    lives = Lives()
    undisturbed = await _uninterrupted(tmp_path / "baseline", strict, lives, episodes=LOGGED)
    _, second, *_ = [number for number, moment in enumerate(lives.moments) if moment == "next_version"]
    outcome = await _killed_and_resumed(tmp_path, strict, second, episodes=LOGGED)
    assert outcome.status.resumed_after == (1,)
    assert [step.version for step in outcome.status.steps] == [1, 3, 4, 5]
    assert [step.staleness_max for step in outcome.steps] == [0, 1, 2, 0]
    assert [step.num_logged_groups > 0 for step in outcome.steps] == [True, True, True, False]
    assert [step.dropped.get("stale", 0) > 0 for step in outcome.steps] == [False, False, False, True]
    _assert_same(outcome, undisturbed)


async def test_moments_are_counted(tmp_path: Path) -> None:
    """The tests above reach into a run's last moment, and no further."""
    for config in (CONFIG, FULL):
        lives = Lives()
        await _uninterrupted(tmp_path / config.method, config, lives)
        assert len(lives.moments) == NUM_MOMENTS[config.method]
