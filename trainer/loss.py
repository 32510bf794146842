"""The GRPO objective on token log-probabilities.

    B  sequences        T  positions

Clipped surrogate with group-relative advantages (DeepSeekMath, arXiv 2402.03300, equation 3), no KL term, asymmetric
clip range (DAPO, arXiv 2503.14476, section 3.1). The engine's log-probabilities differ from the trainer's even with
equal weights; each token is weighted by the truncated ratio min(pi_proximal / pi_engine, cap), without gradient
("Your efficient RL framework secretly brings you off-policy RL training", Yao et al. 2025; TRL: importance sampling
correction, mode token_truncate).
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class GrpoLoss:
    """The loss and what to watch beside it. All but ``value`` are without gradient."""

    value: Tensor
    """Scalar: weighted sum over sequences of the mean over each sequence's tokens."""
    clipped: Tensor
    """Scalar: number of tokens whose gradient the clip removed."""
    weights: Tensor
    """[B, T] importance weight before truncation; zero outside the mask."""
    mismatch: Tensor
    """Scalar: sum of |log pi_engine - log pi_proximal| over the tokens, in nats."""


def grpo_loss(
    logprobs: Tensor,
    proximal_logprobs: Tensor,
    behaviour_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    sequence_weights: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    importance_cap: float,
) -> GrpoLoss:
    """GRPO's loss of one micro-batch.

    Args:
        logprobs: [B, T] of the policy being trained, with gradient.
        proximal_logprobs: [B, T] of the policy at the start of this step; its detached copy when a step is one update.
        behaviour_logprobs: [B, T] recorded by the engine when it sampled.
        advantages: [B].
        mask: [B, T] true on sampled tokens.
        sequence_weights: [B] a sequence's share of the whole batch; 1 / B each when this is the whole batch.
    """
    keep = mask.to(logprobs.dtype)
    ratio = torch.exp((logprobs - proximal_logprobs) * keep)
    clipped_ratio = ratio.clamp(1 - clip_low, 1 + clip_high)
    advantage = advantages.unsqueeze(1)
    surrogate = torch.minimum(ratio * advantage, clipped_ratio * advantage)
    gap = (proximal_logprobs - behaviour_logprobs).detach() * keep
    weights = torch.exp(gap)
    per_token = -surrogate * weights.clamp(max=importance_cap) * keep
    per_sequence = per_token.sum(1) / keep.sum(1).clamp(min=1)
    removed = (ratio * advantage > clipped_ratio * advantage) & mask
    return GrpoLoss(
        value=(per_sequence * sequence_weights).sum(),
        clipped=removed.sum().detach(),
        weights=weights * keep,
        mismatch=gap.abs().sum(),
    )


def effective_sample_size(total: float, total_of_squares: float, count: int) -> float:
    """Kish's (sum w)^2 / (n sum w^2) of ``count`` weights, in (0, 1]; 1 when all weights are equal."""
    return total**2 / (count * total_of_squares)
