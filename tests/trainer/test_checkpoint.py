"""Checkpoints on disk: whole or passed over, the last two kept, tied to a base model and settings."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from structlog.testing import capture_logs

from agent.errors import Conflict, TrainerFailed, TuningError
from trainer.checkpoint import Checkpoints, Position, check_same, settings_of
from trainer.config import TuningConfig
from trainer.drift import Recital
from trainer.examination import ExamStanding
from trainer.graded import GradedReply, Judged
from trainer.lineage import Lineage
from trainer.plan import RunPlan
from trainer.promotion import Standing
from trainer.records import RunRequest, RunState, RunStatus, StepReport

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
PLAN = RunPlan.of(RunRequest(), TuningConfig(), ("de", "pl"))
BASELINE = Judged(0, (GradedReply("p", "pl", 0, {"reward": 0.5, "fidelity": 1.0}),))
EXAM = ExamStanding(("p",), Recital({"pl-1": (-0.5, -1.25)}))


def _report(step: int) -> StepReport:
    return StepReport(
        step, step, 8, 100, 0.5, 0.1, {"pl": 0.5}, {"fidelity": 1.0}, {}, 0.1, 1, 0, 0.9, 0.01, 1, 1, 1, 1
    )


def _position(step: int, version: int | None = None) -> Position:
    status = RunStatus(
        "run_a", RunState.RUNNING, RunRequest(("pl",), seed=3), NOW, None, 20, (), (1,), None, None, resumed_after=(1,)
    )
    return Position(
        run=replace(status, steps=tuple(map(_report, range(1, step + 1)))),
        standing=Standing(version or step, 0, BASELINE, EXAM, Lineage(0, (*range(1, step), version or step))),
        num_draws=2 * step,
        base_model="tiny",
        settings=settings_of(PLAN),
        languages=("de", "pl"),
    )


async def _write_state(folder: Path) -> None:
    (folder / "optimizer.safetensors").write_text("state")


async def _saved(root: Path, *positions: Position) -> Checkpoints:
    checkpoints = Checkpoints(root)
    for position in positions:
        await checkpoints.save(position, _write_state)
    return checkpoints


def _names(root: Path) -> set[str]:
    return {path.name for path in (root / "run_a").iterdir()}


async def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    """Reports, versions, the baseline's grades, settings: the whole position, and the folder of the state."""
    checkpoints = await _saved(tmp_path, _position(3, 7))
    checkpoint = await checkpoints.newest("run_a")
    assert checkpoint is not None
    assert checkpoint.position == _position(3, 7)
    assert checkpoint.folder == tmp_path / "run_a" / "step-3-v7"
    assert (checkpoint.folder / "optimizer.safetensors").read_text() == "state"
    assert checkpoints.newest_version() == 7


def test_a_standing_of_an_older_release_is_read() -> None:
    """Its baseline has means by language, which decide nothing any longer: the run judges the baseline again."""
    old = '{"version": 3, "parent": 0, "baseline": {"version": 0, "rewards": {"pl": [0.5]}, "fidelity": {"pl": [1.0]}}}'
    standing = TypeAdapter(Standing).validate_json(old)
    assert standing == Standing(3, 0, Judged(0))
    assert standing.known_lineage == Lineage(3)


async def test_the_last_two_are_kept(tmp_path: Path) -> None:
    """And nothing temporary; the pointer names the newest."""
    await _saved(tmp_path, *map(_position, (1, 2, 9, 10)))
    assert _names(tmp_path) == {"step-9-v9", "step-10-v10", "latest"}
    assert (tmp_path / "run_a" / "latest").read_text() == "step-10-v10"


async def test_a_run_without_one_starts_over(tmp_path: Path) -> None:
    """It was killed before its first; there is no version that it could have left either."""
    checkpoints = Checkpoints(tmp_path)
    assert await checkpoints.newest("run_a") is None
    assert checkpoints.newest_version() == 0


@pytest.mark.parametrize("name", ["optimizer.safetensors", "position.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flipped", "torn", "gone"])
async def test_a_damaged_one_is_passed_over(tmp_path: Path, name: str, damage: str) -> None:
    """One bit, half of the file, or all of it: the one before is used, and an error is logged."""
    checkpoints = await _saved(tmp_path, _position(1), _position(2))
    path = tmp_path / "run_a" / "step-2-v2" / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        half = content[: len(content) // 2]
        path.write_bytes(half if damage == "torn" else bytes([content[0] ^ 1]) + content[1:])
    with capture_logs() as logs:
        checkpoint = await checkpoints.newest("run_a")
    assert checkpoint is not None
    assert checkpoint.position == _position(1)
    assert [(log["event"], log["log_level"], log["checkpoint"]) for log in logs] == [
        ("checkpoint_damaged", "error", "step-2-v2")
    ]


async def test_a_run_whose_checkpoints_are_all_damaged_cannot_go_on(tmp_path: Path) -> None:
    """It is not started over in silence."""
    checkpoints = await _saved(tmp_path, _position(1), _position(2))
    for folder in (tmp_path / "run_a").glob("step-*"):
        (folder / "position.json").write_text("{}")
    with pytest.raises(Conflict, match=r"run_a has no checkpoint that reads back whole.*start a new run"):
        await checkpoints.newest("run_a")


async def test_one_that_was_not_pointed_to_is_older_than_the_one_that_is(tmp_path: Path) -> None:
    """The power went between the rename and the pointer: the run had not gone on from it."""
    checkpoints = await _saved(tmp_path, _position(1), _position(2))
    (tmp_path / "run_a" / "latest").write_text("step-1-v1")
    checkpoint = await checkpoints.newest("run_a")
    assert checkpoint is not None
    assert checkpoint.position.step == 1


async def test_a_run_that_went_back_forgets_what_was_damaged(tmp_path: Path) -> None:
    """From 3 of 2, 3 and a damaged 4 comes another 4: it and 3 are kept."""
    checkpoints = await _saved(tmp_path, _position(3), _position(4))
    await checkpoints.save(_position(4, 9), _write_state)
    assert _names(tmp_path) == {"step-3-v3", "step-4-v9", "latest"}


async def test_a_state_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    """Whether the learner or the disk refuses; nothing temporary stays."""
    checkpoints = await _saved(tmp_path, _position(1))

    async def refuse(folder: Path) -> None:
        (folder / "optimizer.safetensors").write_text("half")
        raise TrainerFailed("the disk is full")

    async def full(folder: Path) -> None:
        raise OSError("no space left on device")

    with pytest.raises(TrainerFailed):
        await checkpoints.save(_position(2), refuse)
    with pytest.raises(TuningError, match="a checkpoint of run_a could not be written: no space left"):
        await checkpoints.save(_position(2), full)
    assert _names(tmp_path) == {"step-1-v1", "latest"}


async def test_only_runs_that_can_be_resumed_keep_theirs(tmp_path: Path) -> None:
    """What a run left that ended without its node is deleted at the next start."""
    checkpoints = await _saved(tmp_path, _position(1), replace(_position(1), run=replace(_position(1).run, id="run_b")))
    checkpoints.keep_only(["run_b"])
    assert await checkpoints.newest("run_a") is None
    assert await checkpoints.newest("run_b") is not None
    checkpoints.discard("run_b")
    assert await checkpoints.newest("run_b") is None


def test_a_run_of_another_model_or_other_settings_is_refused() -> None:
    """The message names the key, both values, and what to do. What changes only memory or files may differ."""
    position = _position(2)
    check_same(position, PLAN, "tiny")
    with pytest.raises(Conflict, match=r"run_a trains tiny, and this node serves other: resume it on a node with"):
        check_same(position, PLAN, "other")
    slower = RunPlan.of(RunRequest(learning_rate=1e-6, gate=False), TuningConfig(), ("de",))
    with pytest.raises(Conflict) as refusal:
        check_same(position, slower, "tiny")
    assert str(refusal.value) == (
        "run_a was begun with other settings: tuning.gate.enabled was true and is false; tuning.learning_rate was "
        "0.0001 and is 1e-06. Restore them and restart the node, or start a new run"
    )
    smaller = TuningConfig(microbatch_tokens=64, checkpoint_every=5, resume="auto", keep_adapters=1)
    check_same(position, RunPlan.of(RunRequest(), smaller, ("de",)), "tiny")
