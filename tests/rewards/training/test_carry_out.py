"""One training with TRL on a tiny model: what it learns, what it writes, how it is judged."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from peft import PeftModelForSequenceClassification
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from agent.errors import TooFewPairs
from rewards.models.manifest import MANIFEST, WEIGHTS, verified_manifest
from rewards.preference import PreferencePair
from rewards.training.pair_file import write_pairs
from rewards.training.progress import Progress
from rewards.training.report import TrainingReport, read_report
from rewards.training.settings import (
    PAIRS_NAME,
    VERSION_NAME,
    Minimum,
    TrainingOrder,
    TrainingSettings,
)
from tests.planted_pairs import planted_pairs
from tests.tiny_model import save_tiny_llama

SETTINGS = TrainingSettings(
    epochs=2,
    learning_rate=2e-3,
    rank=4,
    batch_size=8,
    max_tokens=256,
    seed=3,
    num_threads=1,
    significance=0.05,
)
NUM_TRAINING, NUM_HELD_OUT = 64, 24

CarryOut = Callable[[TrainingOrder, Path, Callable[[Progress], None]], TrainingReport]


@pytest.fixture(scope="module")
def carry_out() -> CarryOut:
    with warnings.catch_warnings():
        # At its import TRL warns of the vLLM that is installed, which is not used here.
        warnings.simplefilter("ignore", UserWarning)
        from rewards.training.carry_out import carry_out
    return carry_out


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"), hidden_size=64, num_layers=1)


def order_of(model: Path, baseline: Path | None = None) -> TrainingOrder:
    return TrainingOrder(
        language="de",
        version=1,
        backbone="tiny",
        model=str(model),
        baseline=baseline,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        minimum=Minimum(training=8, held_out=8),
        settings=SETTINGS,
    )


def work_folder(folder: Path, pairs: Sequence[PreferencePair]) -> Path:
    folder.mkdir()
    write_pairs(folder / PAIRS_NAME, pairs)
    return folder


@pytest.fixture(scope="module")
def trained(carry_out: CarryOut, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Progress]]:
    """A version trained on the planted taste, and what was told on the way."""
    told: list[Progress] = []
    work = work_folder(tmp_path_factory.mktemp("work") / "a", planted_pairs(NUM_TRAINING, NUM_HELD_OUT))
    carry_out(order_of(tiny), work, told.append)
    return work / VERSION_NAME, told


def test_a_planted_taste_is_learned(trained: tuple[Path, list[Progress]]) -> None:
    """Replies that name the brand win on held-out prompts, so the candidate beats chance."""
    report = read_report(trained[0])
    assert report.candidate.accuracy.num_pairs == NUM_HELD_OUT
    assert report.candidate.accuracy.value >= 0.9
    assert report.verdict.accepted
    assert report.verdict.baseline is None
    assert (report.num_training, report.num_held_out) == (
        {"comparison": 21, "edit": 22, "rating": 21},  # 64 = 22 + 21 + 21, by number modulo 3
        {"comparison": 8, "edit": 8, "rating": 8},
    )


def test_each_step_is_told(trained: tuple[Path, list[Progress]]) -> None:
    """64 pairs in batches of 8, twice: 16 steps, whose losses are kept in the report."""
    folder, told = trained
    assert [(progress.step, progress.num_steps) for progress in told] == [(step, 16) for step in range(1, 17)]
    assert read_report(folder).losses == tuple(progress.loss for progress in told)
    assert told[-1].loss < told[0].loss


def test_the_version_is_what_peft_and_the_manifest_say(trained: tuple[Path, list[Progress]], tiny: Path) -> None:
    """PEFT's own loader takes the folder; the manifest names every file, the pairs and the accuracy."""
    folder, _ = trained
    manifest = verified_manifest(folder)
    assert manifest.files.keys() == {"adapter_config.json", WEIGHTS, "report.json"}
    assert {path.name for path in folder.iterdir()} == {*manifest.files, MANIFEST}
    assert (manifest.version, manifest.language, manifest.backbone) == (1, "de", "tiny")
    assert manifest.num_pairs == NUM_TRAINING
    assert manifest.held_out_accuracy == read_report(folder).candidate.accuracy.value
    assert manifest.calibration.scale > 0
    assert manifest.calibration.length.keys() == {"create"}
    model = AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1)
    loaded = PeftModelForSequenceClassification.from_pretrained(model, str(folder))
    score = load_file(folder / WEIGHTS)["base_model.model.score.weight"]
    head = dict(loaded.named_parameters())["base_model.model.score.modules_to_save.default.weight"]
    assert head.equal(score)


def test_equal_seeds_make_equal_files(
    carry_out: CarryOut, trained: tuple[Path, list[Progress]], tiny: Path, tmp_path: Path
) -> None:
    """Same order, same pairs: the same bytes, manifest and report included."""
    work = work_folder(tmp_path / "b", planted_pairs(NUM_TRAINING, NUM_HELD_OUT))
    carry_out(order_of(tiny), work, lambda progress: None)
    for path in trained[0].iterdir():
        assert (work / VERSION_NAME / path.name).read_bytes() == path.read_bytes(), path.name


def test_an_equal_candidate_does_not_beat_the_active_version(
    carry_out: CarryOut, trained: tuple[Path, list[Progress]], tiny: Path, tmp_path: Path
) -> None:
    """What ranks every prompt alike has no vote: p = 1."""
    work = work_folder(tmp_path / "c", planted_pairs(NUM_TRAINING, NUM_HELD_OUT))
    report = carry_out(order_of(tiny, trained[0]), work, lambda progress: None)
    assert report.verdict.baseline == 1
    assert (report.verdict.wins, report.verdict.losses, report.verdict.p_value) == (0, 0, 1.0)
    assert not report.verdict.accepted
    assert report.baseline == report.candidate


def test_held_out_pairs_are_never_trained_on(
    carry_out: CarryOut, trained: tuple[Path, list[Progress]], tiny: Path, tmp_path: Path
) -> None:
    """With every held-out pair turned round the weights stay the same, and the accuracy is what is left of 1."""
    pairs = planted_pairs(NUM_TRAINING, NUM_HELD_OUT)
    turned = [replace(p, chosen=p.rejected, rejected=p.chosen) if p.held_out else p for p in pairs]
    work = work_folder(tmp_path / "d", turned)
    report = carry_out(order_of(tiny), work, lambda progress: None)
    assert (work / VERSION_NAME / WEIGHTS).read_bytes() == (trained[0] / WEIGHTS).read_bytes()
    accuracy = read_report(trained[0]).candidate.accuracy.value
    assert report.candidate.accuracy.value == pytest.approx(1 - accuracy)
    assert not report.verdict.accepted


def test_pairs_that_are_too_long_are_left_out(carry_out: CarryOut, tiny: Path, tmp_path: Path) -> None:
    """When too few are left, the training refuses with the counts and leaves no version."""
    pairs = [replace(pair, chosen="Menschen " * 300) for pair in planted_pairs(9, 8)]
    work = work_folder(tmp_path / "e", pairs)
    with pytest.raises(TooFewPairs, match=r"for de needs at least 8 training pairs .*got 0 and at least 8 held-out"):
        carry_out(order_of(tiny), work, lambda progress: None)
    assert not (work / VERSION_NAME).exists()
