"""One training of a reward model, from a work folder's order to a written version.

    order.json, pairs.jsonl → fit → adapter ─┬→ scores of training replies → calibration
                                             └→ scores of held-out pairs ┬→ report
                               active version → scores of the same pairs ┘   and the gate's verdict

The written adapter is loaded as the node will load it, and judged by that: what cannot be loaded becomes no version.
"""

import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import set_seed

from agent.errors import ModelError
from rewards.models.backbone import Backbone, batches, load_classifier
from rewards.models.calibration import IDENTITY, Calibration
from rewards.models.encoding import RewardEncoder
from rewards.models.manifest import RewardManifest, read_manifest, write_manifest
from rewards.preference import PreferencePair, conversation
from rewards.training.calibrate import TrainingReply, calibrate
from rewards.training.comparison import compare
from rewards.training.fit import EncodedPair, fit, save_adapter
from rewards.training.held_out import report_of
from rewards.training.pair_file import read_pairs
from rewards.training.progress import Progress
from rewards.training.report import TrainingReport, write_report
from rewards.training.scored import ScoredPair, ScoredReply
from rewards.training.selection import PairSelection, by_source
from rewards.training.settings import PAIRS_NAME, VERSION_NAME, TrainingOrder
from rewards.words import count_words

_BATCH_TOKENS = 4096
_CANDIDATE, _BASELINE = "candidate", "baseline"


@dataclass(frozen=True, slots=True)
class _Entry:
    """A pair with the rows that a backbone reads."""

    pair: PreferencePair
    rows: EncodedPair

    @property
    def num_tokens(self) -> int:
        return max(len(self.rows.chosen), len(self.rows.rejected))


@dataclass(frozen=True, slots=True)
class _Raw:
    """The head's outputs for one pair."""

    chosen: float
    rejected: float


def carry_out(order: TrainingOrder, work: Path, on_step: Callable[[Progress], None]) -> TrainingReport:
    """Train on the work folder's pairs, measure, and write the version beside them.

    Raises:
        ModelError: the backbone cannot be loaded, or the adapter that was trained on it cannot.
        TooFewPairs: so many pairs are too long that too few are left.
        ValueError: the chat template takes no user's and assistant's turn.
    """
    encoder = RewardEncoder.load(order.model)
    entries = [_entry(encoder, pair) for pair in read_pairs(work / PAIRS_NAME)]
    fitting = [entry for entry in entries if entry.num_tokens <= order.settings.max_tokens]
    PairSelection.of([entry.pair for entry in fitting]).require(order.language, order.minimum)
    training = [entry for entry in fitting if not entry.pair.held_out]
    held_out = [entry for entry in fitting if entry.pair.held_out]
    folder = work / VERSION_NAME
    folder.mkdir(mode=0o700)
    losses = _train(order, encoder, training, work / "scratch", folder, on_step)
    manifest = write_manifest(folder, _manifest(order, len(training)))
    backbone = _backbone(order, encoder)
    backbone.load_adapter(_CANDIDATE, folder)
    calibration = calibrate(_replies(training, _scores(backbone, _CANDIDATE, training)))
    candidate = _scored(held_out, _scores(backbone, _CANDIDATE, held_out), calibration)
    baseline, baseline_version = _baseline_scores(order, backbone, held_out)
    verdict = compare(candidate, baseline, baseline_version=baseline_version, significance=order.settings.significance)
    report = TrainingReport(
        settings=order.settings,
        num_training=by_source([entry.pair for entry in training]),
        num_held_out=by_source([entry.pair for entry in held_out]),
        num_too_long=len(entries) - len(fitting),
        losses=losses,
        candidate=report_of(candidate),
        baseline=report_of(baseline) if baseline is not None else None,
        verdict=verdict,
    )
    write_report(folder, report)
    accuracy = report.candidate.accuracy.value
    write_manifest(folder, replace(manifest, held_out_accuracy=accuracy, calibration=calibration))
    return report


def _entry(encoder: RewardEncoder, pair: PreferencePair) -> _Entry:
    chosen, rejected = (tuple(encoder.encode(pair.brief, text)) for text in (pair.chosen, pair.rejected))
    return _Entry(pair, EncodedPair(chosen, rejected))


def _train(
    order: TrainingOrder,
    encoder: RewardEncoder,
    entries: Sequence[_Entry],
    scratch: Path,
    folder: Path,
    on_step: Callable[[Progress], None],
) -> tuple[float, ...]:
    """Fit an adapter, write it, and return the loss of each step."""
    losses: list[float] = []

    def note(progress: Progress) -> None:
        losses.append(progress.loss)
        on_step(progress)

    torch.set_num_threads(order.settings.num_threads)
    set_seed(order.settings.seed)  # of the head, which a model without one gets when it is loaded
    model = load_classifier(order.model, encoder.tokenizer, dtype=torch.float32).model
    trained = fit(model, encoder.tokenizer, [entry.rows for entry in entries], order.settings, scratch, note)
    save_adapter(trained, folder)
    return tuple(losses)


def _backbone(order: TrainingOrder, encoder: RewardEncoder) -> Backbone:
    """A fresh one; the trained model is released first, since host memory may not hold two."""
    gc.collect()
    return Backbone(load_classifier(order.model, encoder.tokenizer, dtype=torch.float32))


def _manifest(order: TrainingOrder, num_pairs: int) -> RewardManifest:
    return RewardManifest(
        version=order.version,
        language=order.language,
        backbone=order.backbone,
        created_at=order.created_at.isoformat(),
        num_pairs=num_pairs,
        held_out_accuracy=None,
        calibration=IDENTITY,
        files={},
    )


def _scores(backbone: Backbone, adapter: str, entries: Sequence[_Entry]) -> list[_Raw]:
    """Raises ModelError when a score is not finite."""
    rows = [row for entry in entries for row in (entry.rows.chosen, entry.rows.rejected)]
    scores = [float("nan")] * len(rows)
    for batch in batches([len(row) for row in rows], batch_tokens=_BATCH_TOKENS):
        for index, score in zip(batch, backbone.scores([rows[index] for index in batch], adapter), strict=True):
            scores[index] = score
    if not all(map(math.isfinite, scores)):
        raise ModelError("the trained reward model must score every reply, got a score that is not finite")
    return [_Raw(*pair) for pair in zip(scores[::2], scores[1::2], strict=True)]


def _replies(entries: Sequence[_Entry], scores: Sequence[_Raw]) -> list[TrainingReply]:
    return [
        TrainingReply(raw, entry.pair.brief.kind.value, num_words, math.log1p(num_words), chosen)
        for entry, score in zip(entries, scores, strict=True)
        for raw, num_words, chosen in (
            (score.chosen, count_words(entry.pair.chosen), True),
            (score.rejected, count_words(entry.pair.rejected), False),
        )
    ]


def _scored(entries: Sequence[_Entry], scores: Sequence[_Raw], calibration: Calibration) -> list[ScoredPair]:
    return [
        ScoredPair(
            prompt=conversation(entry.pair.brief)[0].content,
            kind=entry.pair.brief.kind,
            source=entry.pair.source,
            chosen=_reply(score.chosen, entry.pair.brief.kind, entry.pair.chosen, calibration),
            rejected=_reply(score.rejected, entry.pair.brief.kind, entry.pair.rejected, calibration),
        )
        for entry, score in zip(entries, scores, strict=True)
    ]


def _reply(raw: float, kind: str, text: str, calibration: Calibration) -> ScoredReply:
    num_words = count_words(text)
    standard = calibration.standard(raw, kind=kind, num_words=num_words)
    return ScoredReply(raw, standard * calibration.scale + calibration.center, math.log1p(num_words))


def _baseline_scores(
    order: TrainingOrder, backbone: Backbone, entries: Sequence[_Entry]
) -> tuple[list[ScoredPair] | None, int | None]:
    """The active version's scores and number; none when there is none, or when it belongs to another backbone, since
    the node can no longer judge by it then."""
    if order.baseline is None:
        return None, None
    manifest = read_manifest(order.baseline)
    if manifest.backbone != order.backbone:
        return None, None
    backbone.load_adapter(_BASELINE, order.baseline)
    scores = _scores(backbone, _BASELINE, entries)
    return _scored(entries, scores, manifest.calibration), manifest.version
