"""The learner behind the engine: what travels, how answers are waited for, which error comes out."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.errors import EngineDead, EngineError, PublicationFailed, TrainerFailed, TuningError
from service.engine_trainer import EngineTrainer
from trainer import messages
from trainer.batch import TrainingBatch
from trainer.objective_settings import ObjectiveSettings
from trainer.ports import LearnerSettings, PolicyMetadata, StepResult, TrainerPort

SETTINGS = LearnerSettings(
    rank=8,
    alpha=16.0,
    target_modules=("q_proj",),
    learning_rate=1e-4,
    weight_decay=0.0,
    max_grad_norm=1.0,
    objective=ObjectiveSettings(
        loss="grpo",
        objective="decoupled",
        clip_low=0.2,
        clip_high=0.2,
        importance_correction="token_truncate",
        importance_cap=2.0,
        kl_weight=0.0,
    ),
    updates_per_batch=1,
    reply_tokens=16,
    microbatch_tokens=128,
    logit_chunk_tokens=64,
    seed=0,
)
RESULT = StepResult(0.1, 1.0, 0.0, 0.9, 0.01, 0.5)
METADATA = PolicyMetadata(version=3, parent=0, run_id="run_1", base_model="tiny")
BATCH = TrainingBatch(
    token_ids=np.array([[5, 6, 7]], np.int64),
    mask=np.array([[False, True, True]]),
    behaviour_logprobs=np.array([[0.0, -0.5, -0.25]], np.float32),
    advantages=np.array([1.5], np.float32),
    temperature=0.7,
    oldest_version=2,
)


class Worker:
    """The worker's side of `call`: keeps commands, answers each after ``num_polls`` polls in vain."""

    def __init__(self, answer: messages.Answer | None = None, *, num_polls: int = 0) -> None:
        self.answer = answer or messages.Done()
        self.num_polls = num_polls
        self.failures: dict[str, Exception] = {}
        self.commands: list[messages.Command] = []
        self.calls: list[tuple[str, *tuple[Any, ...]]] = []

    async def call(self, method: str, *args: Any) -> Any:
        self.calls.append((method, *args))
        if method in self.failures:
            raise self.failures[method]
        if method == "coloq_submit":
            self.commands.append(messages.decode_command(args[0]))
            return len(self.commands)
        if method == "coloq_poll":
            assert args == (len(self.commands),)
            self.num_polls -= 1
            return messages.encode(self.answer) if self.num_polls < 0 else None
        return {"coloq_installed": [1, 2], "coloq_publish_live": 2.5}.get(method)

    async def answered(self, ticket: int, within_s: float) -> None:
        assert ticket == len(self.commands)
        self.calls.append(("answered",))


def test_it_is_the_loops_trainer() -> None:
    """The tuning loop takes it as its port."""

    def check(trainer: EngineTrainer) -> TrainerPort:
        return trainer

    assert callable(check(EngineTrainer(Worker())).step)


async def test_step_travels_whole_and_brings_its_result() -> None:
    """The batch that the learner decodes equals the one that was given. The answer is fetched when word of it has come,
    and after a while without."""
    worker = Worker(messages.Done(step=RESULT), num_polls=3)
    assert await EngineTrainer(worker).step(BATCH, 9) == RESULT
    (command,) = worker.commands
    assert isinstance(command, messages.Step)
    assert command.version == 9
    arrived = command.batch()
    for name in ("token_ids", "mask", "behaviour_logprobs", "advantages"):
        np.testing.assert_array_equal(getattr(arrived, name), getattr(BATCH, name))
    assert (arrived.temperature, arrived.oldest_version) == (0.7, 2)
    assert [name for name, *_ in worker.calls] == ["coloq_submit", *["answered", "coloq_poll"] * 4]


@pytest.mark.parametrize(("parent", "folder"), [(None, None), (Path("policies/v2"), "policies/v2")])
async def test_begin_names_the_parents_folder(parent: Path | None, folder: str | None) -> None:
    """A run starts from a published policy's folder, or from a fresh adapter."""
    worker = Worker()
    await EngineTrainer(worker).begin(SETTINGS, parent)
    assert worker.commands == [messages.Begin(SETTINGS, folder)]


async def test_logprobs_come_back_row_by_row() -> None:
    """Token ids go as lists, one row of log-probabilities per reply comes back."""
    worker = Worker(messages.Done(logprobs=[[-0.5], [-1.0, -2.0]]))
    rows = await EngineTrainer(worker).logprobs([(1,), (2, 3)], [(4,), (5, 6)])
    assert rows == [[-0.5], [-1.0, -2.0]]
    assert worker.commands == [messages.Logprobs([[1], [2, 3]], [[4], [5, 6]])]


async def test_save_and_load_bring_the_manifests_digest(tmp_path: Path) -> None:
    """Both sides of a publication speak of the same digest."""
    worker = Worker(messages.Done(digest="abc"))
    trainer = EngineTrainer(worker)
    assert await trainer.save(tmp_path, METADATA) == "abc"
    assert await trainer.verify(tmp_path) == "abc"
    assert await trainer.load(tmp_path, 3) == "abc"
    folder = str(tmp_path)
    assert worker.commands == [
        messages.Save(folder, METADATA),
        messages.Verify(folder),
        messages.Load(folder, 3),
    ]


async def test_checkpoints_are_commands_of_the_learner(tmp_path: Path) -> None:
    """Writing one, and going on from one instead of beginning."""
    worker = Worker()
    trainer = EngineTrainer(worker)
    await trainer.checkpoint(tmp_path)
    await trainer.resume(SETTINGS, tmp_path, 5)
    assert worker.commands == [messages.Checkpoint(str(tmp_path)), messages.Resume(SETTINGS, str(tmp_path), 5)]


async def test_install_and_remove_are_calls_between_two_engine_steps() -> None:
    """A slot is filled directly; removing frees the slot first and then the kept weights."""
    worker = Worker()
    trainer = EngineTrainer(worker)
    await trainer.install(4)
    await trainer.remove(4)
    assert await trainer.installed() == [1, 2]
    assert worker.calls[:2] == [("coloq_install", 4), ("coloq_remove", 4)]
    assert worker.commands == [messages.Forget(4)]


async def test_live_weights_change_between_two_engine_steps() -> None:
    """Publishing and restoring are calls that return at once; copies are made and dropped by the learner's thread."""
    worker = Worker()
    trainer = EngineTrainer(worker)
    assert await trainer.publish_live(4) == 2.5
    await trainer.restore_live(3)
    assert worker.calls == [("coloq_publish_live", 4), ("coloq_restore_live", 3)]
    await trainer.keep_live(4)
    await trainer.load_base()
    await trainer.forget(3)
    assert worker.commands == [messages.Keep(4), messages.LoadBase(), messages.Forget(3)]


@pytest.mark.parametrize(
    ("failed", "error"),
    [
        (messages.Failed("loss must be finite, got nan"), TrainerFailed),
        (messages.Failed("loss must be finite, got nan", publication=True), PublicationFailed),
    ],
)
async def test_failed_command_raises_its_reason(failed: messages.Failed, error: type[TuningError]) -> None:
    """What the learner caught comes out as the error of the boundary that failed."""
    with pytest.raises(error, match="loss must be finite, got nan"):
        await EngineTrainer(Worker(failed)).step(BATCH, 1)


async def test_answer_without_its_result_is_an_error(tmp_path: Path) -> None:
    """A step without measurements and a policy without digest are never taken for success."""
    with pytest.raises(TrainerFailed, match="without its result"):
        await EngineTrainer(Worker()).step(BATCH, 1)
    with pytest.raises(PublicationFailed, match="without the manifest's digest"):
        await EngineTrainer(Worker()).save(tmp_path, METADATA)


@pytest.mark.parametrize("method", ["coloq_submit", "coloq_poll"])
async def test_worker_that_raises_is_a_failed_trainer(method: str) -> None:
    """A model that cannot be trained refuses commands: that ends the run, not the engine."""
    worker = Worker()
    worker.failures[method] = EngineError("this model cannot be trained")
    with pytest.raises(TrainerFailed, match="this model cannot be trained"):
        await EngineTrainer(worker).begin(SETTINGS, None)


@pytest.mark.parametrize(
    ("method", "switch", "participle"),
    [
        ("coloq_install", lambda trainer: trainer.install(4), "installed"),
        ("coloq_publish_live", lambda trainer: trainer.publish_live(4), "published"),
        ("coloq_restore_live", lambda trainer: trainer.restore_live(4), "restored"),
    ],
)
async def test_switch_that_raises_is_a_failed_publication(
    method: str, switch: Callable[[EngineTrainer], Awaitable[object]], participle: str
) -> None:
    """No slot, no publication."""
    worker = Worker()
    worker.failures[method] = EngineError("all 7 adapter slots are taken")
    with pytest.raises(PublicationFailed, match=f"version 4 could not be {participle}: all 7 adapter slots are taken"):
        await switch(EngineTrainer(worker))


@pytest.mark.parametrize(
    ("method", "command"),
    [
        ("coloq_submit", lambda trainer: trainer.begin(SETTINGS, None)),
        ("coloq_poll", lambda trainer: trainer.step(BATCH, 1)),
        ("coloq_install", lambda trainer: trainer.install(1)),
        ("coloq_remove", lambda trainer: trainer.remove(1)),
        ("coloq_publish_live", lambda trainer: trainer.publish_live(1)),
        ("coloq_restore_live", lambda trainer: trainer.restore_live(1)),
    ],
)
async def test_dead_engine_stays_a_dead_engine(
    method: str, command: Callable[[EngineTrainer], Awaitable[object]]
) -> None:
    """The run's end names the death of the process, not a failure of the trainer."""
    worker = Worker()
    worker.failures[method] = EngineDead("the engine process died")
    with pytest.raises(EngineDead):
        await command(EngineTrainer(worker))
