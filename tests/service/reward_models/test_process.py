"""The process that trains reward models, for real."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from agent.errors import TrainerFailed
from rewards.config import RewardTrainingConfig
from rewards.training.program import NICENESS
from rewards.training.settings import ORDER_NAME, Minimum, TrainingOrder, TrainingSettings, write_order
from service.reward_models.process import ChildTraining
from service.reward_models.records import TrainingState
from service.reward_models.trainings import TrainingRequest
from tests.planted_pairs import planted_pairs
from tests.service.reward_models.desks import Rig
from tests.tiny_model import save_tiny_llama


async def test_pairs_become_a_reward_model_that_judges(tmp_path: Path) -> None:
    """From pairs to an active version, in a child of the lowest priority, whose steps are seen on the way."""
    model = save_tiny_llama(tmp_path / "tiny", hidden_size=64, num_layers=1)
    config = RewardTrainingConfig(
        min_pairs=8, min_held_out=8, epochs=2, learning_rate=2e-3, rank=4, max_tokens=256, num_threads=1
    )
    rig = Rig(tmp_path, planted_pairs(64, 24), ChildTraining(), str(model), config)
    started = await rig.desk.train("de", TrainingRequest(seed=3))
    niceness: set[int] = set()
    while not (await rig.desk.training(started.id)).step:
        with suppress(psutil.NoSuchProcess):  # one that ended meanwhile
            niceness |= {child.nice() for child in psutil.Process().children()}
        await asyncio.sleep(0.05)
    await rig.trainings.wait()
    status = await rig.desk.training(started.id)
    assert (status.state, status.step, status.num_steps) == (TrainingState.ACCEPTED, 16, 16), status.reason
    models = await rig.desk.of("de")
    assert models.active == 1
    assert models.active_accuracy is not None
    assert models.active_accuracy >= 0.9
    assert NICENESS in niceness


async def test_a_process_that_fails_says_why_in_a_line(tmp_path: Path) -> None:
    """The last line of its standard error, with its exit code."""
    (tmp_path / ORDER_NAME).write_text("{}")
    with pytest.raises(TrainerFailed, match=r"ended with exit code 1: .*pydantic"):
        await ChildTraining().run(tmp_path, num_threads=1, on_progress=lambda progress: None)


async def test_a_cancelled_process_is_gone(tmp_path: Path) -> None:
    """Nothing of it runs when the cancellation has been taken."""
    settings = TrainingSettings(1, 1e-3, 2, 8, 64, 0, 1, 0.05)
    write_order(
        tmp_path,
        TrainingOrder("de", 1, "tiny", "tiny", None, datetime(2026, 1, 1, tzinfo=UTC), Minimum(1, 1), settings),
    )
    before = set(psutil.pids())
    running = asyncio.create_task(ChildTraining().run(tmp_path, num_threads=1, on_progress=lambda progress: None))
    await asyncio.sleep(0.5)  # of the seconds that its imports take
    started = {child.pid for child in psutil.Process().children()} - before
    assert len(started) == 1
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not started & set(psutil.pids())
