"""Checkpoints of tuning runs on disk: what a run needs to go on after kill -9 or a power cut.

    <root>/run_ab12/claims.jsonl                     which prompts every draw claimed (trainer.claim_log)
                    step-8-v9/position.json          step, versions, reports, baseline, settings
                              optimizer.safetensors  fp32 masters, moments, number of steps
                              manifest.json          the digest of both
                    step-9-v10/…
                    latest                           "step-9-v10", written last

A folder is written beside its place, synced, renamed, and only then pointed to. The last two are kept: one that turns
out to be damaged is passed over with an error in the log, and the run goes on from the one before. No pickle.

Random state is not in here because there is none: seeds of prompts and siblings follow from the run's seed, the step,
the draw, and the place in it (trainer.plan, trainer.rollout), and the learner draws nothing.
"""

import asyncio
import json
import os
import shutil
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from pydantic import TypeAdapter

from agent.completion import BASE_VERSION
from agent.errors import ColoqError, Conflict, TuningError
from agent.files import check_digests, digests_of, move_durably, replace_durably, sync, write_json
from trainer.plan import RunPlan
from trainer.promotion import Standing
from trainer.records import RunStatus

log = structlog.get_logger(__name__)

POSITION, MANIFEST, LATEST, CLAIMS = "position.json", "manifest.json", "latest", "claims.jsonl"
_KEPT = 2


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run stands after a step, beside the optimizer's state."""

    run: RunStatus
    """With the reports of every step so far."""
    standing: Standing
    num_draws: int
    """Draws from the journal before this position; see trainer.claim_log."""
    base_model: str
    settings: Mapping[str, Any]
    """``settings_of`` the run's plan."""
    languages: tuple[str, ...]
    """What the run draws prompts from."""

    @property
    def step(self) -> int:
        return len(self.run.steps)

    @property
    def folder_name(self) -> str:
        return f"step-{self.step}-v{self.standing.version}"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A position that was read back, and the folder that its optimizer state is in."""

    position: Position
    folder: Path


_POSITION: TypeAdapter[Position] = TypeAdapter(Position)


class Checkpoints:
    """Writes, reads and deletes the checkpoints of all runs below one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def claims_path(self, run_id: str) -> Path:
        """Where the run's draws are recorded."""
        return self._root / run_id / CLAIMS

    async def save(self, position: Position, write_state: Callable[[Path], Awaitable[None]]) -> None:
        """Write a checkpoint and point to it; only the last two are left.

        Args:
            write_state: writes the optimizer's state into a folder; trainer.ports.TrainerPort.checkpoint.

        Raises:
            TuningError: the disk refused; the checkpoints before this one are as they were.
            ColoqError: whatever ``write_state`` raises; likewise.
        """
        run = self._root / position.run.id
        partial = run / f".{position.folder_name}.partial-{os.getpid()}"
        try:
            await asyncio.to_thread(_make_empty, partial)
            await write_state(partial)
            await asyncio.to_thread(_complete, partial, position)
        except OSError as error:
            raise TuningError(f"a checkpoint of {position.run.id} could not be written: {error}") from error
        finally:
            await asyncio.to_thread(shutil.rmtree, partial, ignore_errors=True)

    async def newest(self, run_id: str) -> Checkpoint | None:
        """The newest checkpoint that reads back whole; None when the run had not come to its first one.

        Raises:
            Conflict: there are checkpoints, and all are damaged.
        """
        return await asyncio.to_thread(self._newest, run_id)

    def newest_version(self) -> int:
        """The highest version that any checkpoint holds; 0 when there is none."""
        versions = [name.rpartition("-v")[2] for name in (path.name for path in self._root.glob("*/step-*-v*"))]
        return max((int(version) for version in versions if version.isdigit()), default=BASE_VERSION)

    def discard(self, run_id: str) -> None:
        """Delete everything of a run that will not be resumed."""
        shutil.rmtree(self._root / run_id, ignore_errors=True)

    def keep_only(self, run_ids: Iterable[str]) -> None:
        """Delete what runs left behind that ended while the node could not."""
        kept = set(run_ids)
        for path in self._root.glob("*"):
            if path.name not in kept:
                self.discard(path.name)

    def _newest(self, run_id: str) -> Checkpoint | None:
        run = self._root / run_id
        folders = _folders(run)
        for folder in folders:
            try:
                return Checkpoint(_read(folder), folder)
            except (OSError, KeyError, TypeError, AttributeError, ValueError, ColoqError) as error:
                log.error("checkpoint_damaged", run=run_id, checkpoint=folder.name, reason=str(error))
        if folders or (run / LATEST).exists():
            raise Conflict(f"{run_id} has no checkpoint that reads back whole, so it cannot go on: start a new run")
        return None


def settings_of(plan: RunPlan) -> dict[str, Any]:
    """What a run's result depends on, by the configuration's keys, with the run's own choices in their places.

    Left out is what changes only memory, speed or files, so that it may be changed before a run is resumed.
    """
    config = plan.config.model_dump(mode="json")
    for key in _WITHOUT_EFFECT:
        config.pop(key, None)
    config["gate"]["enabled"] = plan.gate
    config |= {
        "steps": plan.num_steps,
        "prompts_per_step": plan.prompts_per_step,
        "group_size": plan.group_size,
        "max_tokens": plan.max_tokens,
        "publish_every": plan.publish_every,
        "learning_rate": plan.learner.learning_rate,
    }
    return dict(_flat(config, "tuning"))


_WITHOUT_EFFECT = (
    "microbatch_tokens",
    "share_prefixes",
    "logit_chunk_tokens",
    "yield_to_engine",
    "keep_adapters",
    "checkpoint_every",
    "resume",
    "full",
)


def check_same(position: Position, plan: RunPlan, base_model: str) -> None:
    """Raises Conflict unless the run was begun with this base model and these settings."""
    if position.base_model != base_model:
        raise Conflict(
            f"{position.run.id} trains {position.base_model}, and this node serves {base_model}: resume it on a node "
            "with that engine.model, or start a new run"
        )
    ours = settings_of(plan)
    changed = [
        f"{key} was {json.dumps(value)} and is {json.dumps(ours[key])}"
        for key, value in sorted(position.settings.items())
        if key in ours and ours[key] != value
    ]
    if changed:
        raise Conflict(
            f"{position.run.id} was begun with other settings: {'; '.join(changed)}. Restore them and restart the "
            "node, or start a new run"
        )


def _flat(table: Mapping[str, Any], path: str) -> Iterable[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}.{key}")
        else:
            yield f"{path}.{key}", value


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _complete(partial: Path, position: Position) -> None:
    """Write the position beside the optimizer's state, move both into place, point to them, delete older ones."""
    folder = partial.with_name(position.folder_name)
    write_json(partial / POSITION, _POSITION.dump_python(position, mode="json"))
    write_json(partial / MANIFEST, {"files": digests_of(partial)})
    shutil.rmtree(folder, ignore_errors=True)  # of a resumed run that came here before, and was damaged since
    move_durably(partial, folder)
    replace_durably(partial.with_name(LATEST), folder.name)
    for path in (partial.parent.parent, partial.parent.parent.parent):
        sync(path)  # of a run's first checkpoint, and of a node's first run, the folder itself is new
    others = [path for path in _folders(partial.parent) if path != folder]
    later = [path for path in others if _step_of(path) >= position.step]  # damaged: the run went on from one before
    for old in (*later, *[path for path in others if path not in later][_KEPT - 1 :]):
        shutil.rmtree(old, ignore_errors=True)


def _folders(run: Path) -> list[Path]:
    """Checkpoints, the one that is pointed to first, then from the newest step to the oldest.

    A later step than the pointer's was written whole, but the power went before the pointer was moved.
    """
    newest_first = sorted(run.glob("step-[0-9]*-v[0-9]*"), key=_step_of, reverse=True)
    try:
        pointed_to = (run / LATEST).read_text().strip()
    except OSError:
        pointed_to = ""
    return sorted(newest_first, key=lambda path: path.name != pointed_to)


def _step_of(folder: Path) -> int:
    return int(folder.name.split("-")[1])


def _read(folder: Path) -> Position:
    files = json.loads((folder / MANIFEST).read_text())["files"]
    if POSITION not in files or len(files) < 2:
        raise ValueError(f"{folder.name} must have a position and an optimizer's state, got {sorted(files)}")
    check_digests(folder, files)
    return _POSITION.validate_json((folder / POSITION).read_text())
