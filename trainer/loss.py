"""The GRPO objective on token log-probabilities.

    B  sequences        N  sampled tokens of a batch, flattened
    T  positions        V  vocabulary        H  hidden size

Clipped surrogate with group-relative advantages (DeepSeekMath, arXiv 2402.03300, equation 3), no KL term, asymmetric
clip range (DAPO, arXiv 2503.14476, section 3.1). The engine's log-probabilities differ from the trainer's even with
equal weights; each token is weighted by the truncated ratio min(pi_proximal / pi_engine, cap), without gradient
("Your efficient RL framework secretly brings you off-policy RL training", Yao et al. 2025; TRL: importance sampling
correction, mode token_truncate).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True, slots=True)
class GrpoLoss:
    """The loss and what to watch beside it. All but ``value`` are without gradient."""

    value: Tensor
    """Scalar: mean over sequences of the mean over each sequence's tokens."""
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
        mask: [B, T] true on sampled tokens; every row has at least one.
    """
    keep = mask.to(logprobs.dtype)
    ratio = torch.exp((logprobs - proximal_logprobs) * keep)
    clipped_ratio = ratio.clamp(1 - clip_low, 1 + clip_high)
    advantage = advantages.unsqueeze(1)
    surrogate = torch.minimum(ratio * advantage, clipped_ratio * advantage)
    gap = (proximal_logprobs - behaviour_logprobs).detach() * keep
    weights = torch.exp(gap)
    per_token = -surrogate * weights.clamp(max=importance_cap) * keep
    per_sequence = per_token.sum(1) / keep.sum(1)
    removed = (ratio * advantage > clipped_ratio * advantage) & mask
    return GrpoLoss(
        value=per_sequence.mean(), clipped=removed.sum().detach(), weights=weights * keep, mismatch=gap.abs().sum()
    )


def effective_sample_size(weights: Tensor, mask: Tensor) -> float:
    """Kish's (sum w)^2 / (n sum w^2) over the masked tokens, in (0, 1]; 1 when all weights are equal."""
    chosen = weights[mask].double()
    return float(chosen.sum() ** 2 / (chosen.numel() * (chosen**2).sum()))


def token_logprobs(hidden: Tensor, head: Tensor, targets: Tensor, *, temperature: float, chunk_tokens: int) -> Tensor:
    """Log-probability of each target under softmax(hidden @ head.T / temperature).

    At most ``chunk_tokens`` rows of logits exist at one time, also in the backward pass, which recomputes them.

    Args:
        hidden: [N, H].
        head: [V, H].
        targets: [N].

    Returns:
        [N] in float32.
    """
    parts = [
        checkpoint(_chunk_logprobs, rows, head, wanted, temperature, use_reentrant=False)
        for rows, wanted in zip(hidden.split(chunk_tokens), targets.split(chunk_tokens), strict=True)
    ]
    return torch.cat(parts)


def _chunk_logprobs(hidden: Tensor, head: Tensor, targets: Tensor, temperature: float) -> Tensor:
    logits = (hidden @ head.T).float() / temperature
    return logits.gather(1, targets.unsqueeze(1)).squeeze(1) - logits.logsumexp(1)
