"""Policy-gradient objectives on token log-probabilities: GRPO and its relatives, as TRL's GRPOTrainer defines them.

    B  sequences        T  positions        S  T, or 1 where a value is a whole sequence's

    policies     behaviour   the engine's log-probabilities, recorded when it sampled
                 proximal    the trainer's at the start of the step, without gradient
                 current     the trainer's in this update, with gradient
                 reference   the base model's, for the KL term

    r = current / old                   old: proximal (decoupled), or behaviour (coupled)
    w = proximal / behaviour            bounded; 1 when coupled
    loss = sum over tokens of share * (-w * surrogate(r, A) + kl_weight * r * k3(current, reference))

Decoupled, the clip bounds how far an update moves from where its step began, and w corrects for who sampled (AReaL,
arXiv 2505.24298, section 5.2). The engine's log-probabilities differ from the trainer's even with equal weights ("Your
efficient RL framework secretly brings you off-policy RL training", Yao et al. 2025). Coupled is PPO's single ratio.

    loss       surrogate                           share of a token, n of its sequence's, N of the batch's
    grpo       min(r A, clip(r) A)                 1 / (B n)      DeepSeekMath, arXiv 2402.03300, equation 3
    dr_grpo    as grpo                             1 / (B L)      arXiv 2503.20783, section 3.2; L the longest allowed
    dapo       as grpo                             1 / N          arXiv 2503.14476, section 3.3
    bnpo       as grpo                             1 / N          as dapo: a step is one batch, however it is cut
    cispo      min(r, 1 + high) without gradient   1 / N          MiniMax-M1, arXiv 2506.13585, section 3.1
               times A log current
    gspo       as grpo, r of the whole sequence    1 / (B n)      arXiv 2507.18071, section 4.1

The clip range is asymmetric (DAPO, section 3.1). Of cispo, TRL's epsilon_high is 1 + clip_high here. The KL term
carries the policy ratio, so that its gradient is the reverse KL's (DeepSeek-V3.2, arXiv 2512.02556, section 3.1; TRL's
use_bias_correction_kl).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.objective_settings import LossType, ObjectiveSettings

_LARGEST_EXPONENT = 20.0
"""Weights stay within e^-20 and e^20, far beyond any cap, so that sums of their squares are finite and never zero."""


@dataclass(frozen=True, slots=True)
class PolicyLogprobs:
    """[B, T] each, at the temperature that was sampled with. What stands outside the mask changes nothing."""

    current: Tensor
    """With gradient."""
    proximal: Tensor
    behaviour: Tensor
    reference: Tensor | None
    """None without a KL term."""


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """The loss and what to watch beside it; all but ``value`` are without gradient."""

    value: Tensor
    """Scalar: the micro-batch's part of the batch's loss."""
    clipped: Tensor
    """[B, T] true on tokens whose gradient the clip removed, by cispo on those whose weight it bounded."""
    importance: Tensor
    """[B, S] proximal / behaviour before it is bounded: of a sequence when the correction is, otherwise of a token,
    also when nothing is corrected. Zero outside the mask."""


def policy_loss(
    logprobs: PolicyLogprobs, advantages: Tensor, mask: Tensor, token_shares: Tensor, settings: ObjectiveSettings
) -> PolicyLoss:
    """The loss of one micro-batch; those of a batch's micro-batches add up to the batch's.

    Args:
        advantages: [B].
        mask: [B, T] true on sampled tokens.
        token_shares: [B] weight of each of a sequence's tokens, as ``token_shares`` gives it; 0 for padding.
    """
    keep = mask.to(logprobs.current.dtype)
    advantage = advantages.unsqueeze(1)
    ratio = _ratio(logprobs, keep, settings)
    surrogate, clipped = _surrogate(ratio, advantage, logprobs.current, settings)
    importance = _importance(logprobs, keep, settings)
    per_token = -surrogate * _bounded(importance, settings)
    if logprobs.reference is not None:
        divergence = k3((logprobs.reference - logprobs.current) * keep)
        per_token = per_token + settings.kl_weight * ratio * divergence
    return PolicyLoss(
        value=(per_token * keep * token_shares.unsqueeze(1)).sum(),
        clipped=clipped.expand_as(mask) & mask,
        importance=importance * mask.any(1, keepdim=True) if importance.shape[1] == 1 else importance * keep,
    )


def k3(log_ratio: Tensor) -> Tensor:
    """exp(d) - d - 1 of d = log q - log p: never negative, and in the mean over samples of p it is KL(p || q).

    Schulman, "Approximating KL divergence" (2020), the estimator k3; DeepSeekMath, equation 4.
    """
    return torch.exp(log_ratio) - log_ratio - 1


def watched_k3(log_ratio: Tensor) -> Tensor:
    """As k3, finite also where the samples' policy has left all that the other one would do."""
    return k3(log_ratio.clamp(max=_LARGEST_EXPONENT))


def token_shares(
    loss: LossType, lengths: Sequence[int], *, num_sequences: int, reply_tokens: int
) -> npt.NDArray[np.float32]:
    """[B] what each token of a sequence weighs in the batch's loss; the table at the top of this file.

    Args:
        lengths: sampled tokens of each sequence.
        num_sequences: what means over sequences divide by; more than ``lengths`` when masked ones count.
        reply_tokens: longest reply allowed, for dr_grpo.
    """
    counts = np.asarray(lengths, dtype=np.float64)
    if loss in ("grpo", "gspo"):
        shares = 1 / (num_sequences * np.maximum(counts, 1))
    elif loss == "dr_grpo":
        shares = np.full(len(counts), 1 / (num_sequences * reply_tokens))
    else:
        shares = np.full(len(counts), 1 / max(counts.sum(), 1))
    return shares.astype(np.float32)


def effective_sample_size(total: float, total_of_squares: float, count: int) -> float:
    """Kish's (sum w)^2 / (n sum w^2) of ``count`` weights, in (0, 1]; 1 when all weights are equal."""
    return total**2 / (count * total_of_squares)


def _ratio(logprobs: PolicyLogprobs, keep: Tensor, settings: ObjectiveSettings) -> Tensor:
    """[B, S] of the current policy to the one that the clip holds it near."""
    old = logprobs.proximal if settings.objective == "decoupled" else logprobs.behaviour
    log_ratio = (logprobs.current - old) * keep
    if settings.loss == "gspo":
        log_ratio = log_ratio.sum(1, keepdim=True) / keep.sum(1, keepdim=True).clamp(min=1)
    return torch.exp(log_ratio)


def _surrogate(ratio: Tensor, advantage: Tensor, current: Tensor, settings: ObjectiveSettings) -> tuple[Tensor, Tensor]:
    """What is to be made large, [B, S] or by cispo [B, T], and where the clip was in force, [B, S]."""
    highest = 1 + settings.clip_high
    if settings.loss == "cispo":
        return ratio.clamp(max=highest).detach() * advantage * current, ratio > highest
    free, held = ratio * advantage, ratio.clamp(1 - settings.clip_low, highest) * advantage
    return torch.minimum(free, held), free > held


def _importance(logprobs: PolicyLogprobs, keep: Tensor, settings: ObjectiveSettings) -> Tensor:
    """[B, S] weights of the engine's samples, before they are bounded."""
    gap = (logprobs.proximal - logprobs.behaviour).detach() * keep
    if settings.weighs_sequences:
        gap = gap.sum(1, keepdim=True)
    return torch.exp(gap.clamp(-_LARGEST_EXPONENT, _LARGEST_EXPONENT))


def _bounded(importance: Tensor, settings: ObjectiveSettings) -> Tensor | float:
    """The weights that the loss uses: cut down to the cap, or zero above it."""
    if settings.objective == "coupled" or settings.importance_correction == "none":
        return 1.0
    if settings.importance_correction.endswith("truncate"):
        return importance.clamp(max=settings.importance_cap)
    return importance.masked_fill(importance > settings.importance_cap, 0)
