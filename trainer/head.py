"""Log-probabilities of given tokens under a language model's head, and its entropy, without ever holding all logits.

    N  tokens        H  hidden size        V  vocabulary

For z = W h / temperature and a target t:

    log p(t) = z_t - logsumexp(z)              d log p(t) / d h = (W_t - softmax(z) W) / temperature
    entropy  = logsumexp(z) - softmax(z) . z   to be watched: without gradient

With a frozen head that derivative is made in the forward pass, chunk by chunk, and kept as [N, H]; the backward pass
only scales it, whatever the loss is. With a trained head the backward pass recomputes each chunk's logits. At most
``chunk_tokens`` rows of logits exist at one time.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def token_logprobs(hidden: Tensor, head: Tensor, targets: Tensor, *, temperature: float, chunk_tokens: int) -> Tensor:
    """Log-probability of each target under softmax(hidden @ head.T / temperature), differentiable.

    Args:
        hidden: [N, H].
        head: [V, H].
        targets: [N].

    Returns:
        [N] in float32.
    """
    return token_scores(hidden, head, targets, temperature=temperature, chunk_tokens=chunk_tokens).logprobs


class TokenScores(NamedTuple):
    """[N] each, in float32."""

    logprobs: Tensor
    entropies: Tensor
    """Of the whole distribution that each target was taken from, in nats; without gradient."""


def token_scores(
    hidden: Tensor, head: Tensor, targets: Tensor, *, temperature: float, chunk_tokens: int
) -> TokenScores:
    """As token_logprobs, with the entropy of each token's distribution, which the same pass over the logits gives."""
    function = _TrainedHead if head.requires_grad else _FrozenHead
    scores = function.apply(hidden, head, targets, temperature, chunk_tokens)  # type: ignore[no-untyped-call]
    return TokenScores(*scores)


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, temperature: float, chunk_tokens: int
    ) -> tuple[Tensor, Tensor]:
        wanted = ctx.needs_input_grad[0]
        values, entropies = (torch.empty(len(hidden), dtype=torch.float32, device=hidden.device) for _ in range(2))
        slopes = torch.empty_like(hidden) if wanted else None
        for start in range(0, len(hidden), chunk_tokens):
            rows = slice(start, start + chunk_tokens)
            values[rows], entropies[rows], residual = residuals(hidden[rows] @ head.T, targets[rows], temperature)
            if slopes is not None:
                torch.mm(residual, head, out=slopes[rows])
        ctx.temperature = temperature
        ctx.save_for_backward(slopes)
        ctx.mark_non_differentiable(entropies)
        return values, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        to_hidden = slopes * (gradient / ctx.temperature).unsqueeze(1)
        return to_hidden.to(slopes.dtype), None, None, None, None


class _TrainedHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, temperature: float, chunk_tokens: int
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(hidden, head, targets)
        ctx.temperature, ctx.chunk_tokens = temperature, chunk_tokens
        parts = [
            residuals(rows @ head.T, wanted, temperature)[:2]
            for rows, wanted in zip(hidden.split(chunk_tokens), targets.split(chunk_tokens), strict=True)
        ]
        logprobs, entropies = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
        ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden, head, targets = ctx.saved_tensors
        to_hidden, to_head = torch.empty_like(hidden), torch.zeros_like(head)
        scale = (gradient / ctx.temperature).unsqueeze(1)
        for start in range(0, len(hidden), ctx.chunk_tokens):
            rows = slice(start, start + ctx.chunk_tokens)
            slopes = residuals(hidden[rows] @ head.T, targets[rows], ctx.temperature).residual.mul_(scale[rows])
            torch.mm(slopes, head, out=to_hidden[rows])
            to_head.addmm_(slopes.T, hidden[rows])
        return to_hidden, to_head, None, None, None


class Residuals(NamedTuple):
    """What one pass over a chunk of logits gives."""

    logprobs: Tensor
    """[N] of the targets, in float32."""
    entropies: Tensor
    """[N] in float32."""
    residual: Tensor
    """[N, V]: onehot(target) - softmax(logits / temperature)."""


def residuals(logits: Tensor, targets: Tensor, temperature: float) -> Residuals:
    """Log-probability of each target, entropy, and the slope of the first one by the scaled logits.

    The residual is formed in float32 and rounded to the logits' type once: 1 - p of a likely token keeps its digits.
    ``logits`` may be overwritten.
    """
    if logits.is_cuda:
        from trainer.triton_residuals import residuals_in_place

        return Residuals(*residuals_in_place(logits, targets, temperature))
    scaled = logits.float() / temperature
    normaliser = scaled.logsumexp(1, keepdim=True)
    logprobs = scaled.gather(1, targets.unsqueeze(1)) - normaliser
    residual = -torch.exp(scaled - normaliser)
    entropies = normaliser.squeeze(1) + torch.linalg.vecdot(residual, scaled)
    residual.scatter_add_(1, targets.unsqueeze(1), torch.ones_like(logprobs))
    return Residuals(logprobs.squeeze(1), entropies, residual.to(logits.dtype))
