"""AdamW on fp32 masters of parameters that compute in a lower precision."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from agent.errors import TrainerFailed


class MasterAdamW:
    """fp32 masters, moments and gradient sums beside compute-precision parameters.

    ``collect()`` after each backward pass adds the micro-batch's gradients in fp32; ``step()`` clips, updates the
    masters and rounds them back into the parameters. In fp32 the parameters and masters hold equal values.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], *, learning_rate: float, weight_decay: float) -> None:
        self._parameters = list(parameters)
        self._masters = [nn.Parameter(p.detach().float().clone()) for p in self._parameters]
        for master in self._masters:
            master.grad = torch.zeros_like(master)
        self._adamw = torch.optim.AdamW(self._masters, lr=learning_rate, weight_decay=weight_decay, foreach=True)

    def collect(self) -> None:
        """Add the parameters' gradients to the masters' and free them."""
        for parameter, total in zip(self._parameters, self._gradients(), strict=True):
            if parameter.grad is not None:
                total.add_(parameter.grad)
                parameter.grad = None

    def gradient_norm(self) -> float:
        """2-norm of the collected gradient."""
        return float(torch.nn.utils.get_total_norm(self._gradients()))

    def step(self, *, max_grad_norm: float, gradient_norm: float) -> None:
        """Update from the collected gradient, scaled down to ``max_grad_norm``, and clear it.

        Raises:
            TrainerFailed: the new weights would not be finite; the old ones stay.
        """
        if gradient_norm > max_grad_norm:
            torch._foreach_mul_(self._gradients(), max_grad_norm / gradient_norm)
        before = [master.detach().clone() for master in self._masters]
        self._adamw.step()
        self.discard()
        with torch.no_grad():
            norm = float(torch.nn.utils.get_total_norm(self._masters))
            if not math.isfinite(norm):
                for master, value in zip(self._masters, before, strict=True):
                    master.copy_(value)
                raise TrainerFailed(f"the norm of the updated weights must be finite, got {norm}")
            for parameter, master in zip(self._parameters, self._masters, strict=True):
                parameter.copy_(master)

    def discard(self) -> None:
        """Forget gradients, collected or not."""
        torch._foreach_zero_(self._gradients())
        for parameter in self._parameters:
            parameter.grad = None

    def _gradients(self) -> list[Tensor]:
        return [master.grad for master in self._masters if master.grad is not None]
