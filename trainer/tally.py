"""What the micro-batches of an update add up on their device, and what a step reports of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from agent.errors import TrainerFailed
from trainer.batch import TrainingBatch
from trainer.loss import PolicyLogprobs, PolicyLoss, effective_sample_size, watched_k3
from trainer.objective_settings import ObjectiveSettings
from trainer.ports import StepResult


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the sampled tokens of one update, in nats where they are log-probabilities; but for the last."""

    loss: float
    clipped: float
    weights: float
    """Of the importance weights, before they are bounded."""
    squared_weights: float
    entropy: float
    behaviour_kl: float
    base_kl: float
    """0 without a KL term."""
    mismatch: float
    """|log behaviour - log proximal|."""
    mismatch_max: float
    """The largest one, not their sum."""


_NUM_SUMS = len(fields(Totals)) - 1


@dataclass(frozen=True, slots=True)
class Update:
    """One optimizer update."""

    totals: Totals
    grad_norm: float
    """2-norm before clipping."""

    def check_finite(self) -> None:
        """Raises TrainerFailed unless loss, gradient norm and mismatch are finite."""
        values = (self.totals.loss, self.grad_norm, self.totals.mismatch)
        if not all(map(math.isfinite, values)):
            raise TrainerFailed("loss, gradient norm and mismatch must be finite, got {}, {} and {}".format(*values))


class Tally:
    """Totals on the device, in one tensor that keeps its address."""

    def __init__(self, device: torch.device) -> None:
        self.values = torch.zeros(_NUM_SUMS + 1, dtype=torch.float64, device=device)
        """[fields of Totals]."""

    def clear(self) -> None:
        """Set everything to zero."""
        self.values.zero_()

    def add(self, loss: PolicyLoss, logprobs: PolicyLogprobs, entropies: Tensor, mask: Tensor) -> None:
        """Add a micro-batch up; nothing is waited for.

        Args:
            entropies: [B, T].
            mask: [B, T].
        """
        sums, peak = _measure(loss, logprobs, entropies, mask)
        self.values[:_NUM_SUMS].add_(sums)
        self.values[_NUM_SUMS:].copy_(torch.maximum(self.values[_NUM_SUMS:], peak))

    def read(self) -> Totals:
        """Wait for the device, and return what it added up."""
        return Totals(*self.values.tolist())


def step_result(
    updates: Sequence[Update], batch: TrainingBatch, settings: ObjectiveSettings, *, duration_s: float
) -> StepResult:
    """What a step reports: of its samples as the first update found them, the largest gradient, otherwise means."""
    first, tokens = updates[0].totals, batch.num_tokens
    num_weights = batch.num_sequences if settings.weighs_sequences else tokens

    def mean(name: str) -> float:
        return sum(float(getattr(update.totals, name)) for update in updates) / len(updates)

    return StepResult(
        loss=mean("loss"),
        grad_norm=max(update.grad_norm for update in updates),
        clip_fraction=mean("clipped") / tokens,
        effective_sample_size=effective_sample_size(first.weights, first.squared_weights, num_weights),
        mismatch_mean=first.mismatch / tokens,
        duration_s=duration_s,
        mismatch_max=first.mismatch_max,
        entropy=mean("entropy") / tokens,
        behaviour_kl=mean("behaviour_kl") / tokens,
        base_kl=mean("base_kl") / tokens if settings.kl_weight else None,
    )


def _measure(loss: PolicyLoss, logprobs: PolicyLogprobs, entropies: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The sums in the order of Totals' fields, and the largest mismatch, [1]."""
    current, weights = logprobs.current.detach(), loss.importance.double()
    mismatch = ((logprobs.proximal - logprobs.behaviour) * mask).abs()
    base_kl = current.new_zeros(())
    if logprobs.reference is not None:
        base_kl = watched_k3((logprobs.reference - current) * mask).sum()
    sums = (
        loss.value.detach(),
        loss.clipped.sum(),
        weights.sum(),
        weights.square().sum(),
        (entropies * mask).sum(),
        watched_k3((current - logprobs.behaviour) * mask).sum(),
        base_kl,
        mismatch.sum(),
    )
    return torch.stack([value.double() for value in sums]), mismatch.max().double().unsqueeze(0)
