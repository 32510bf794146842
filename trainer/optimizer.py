"""AdamW on fp32 masters of tensors that compute in a lower precision.

    discard ──► backward, once per micro-batch ──► gradients ──► step ──► masters ──► write ──► the tensors themselves
                (added up in fp32)

``step`` changes no tensor that anything else reads; ``write`` does, and when is the caller's to say.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from agent.errors import TrainerFailed


class Optimizer(Protocol):
    """Masters, moments and gradient sums of a list of tensors, in their order.

    Works on the current stream. An optimizer is done with once ``step`` has raised for the updated weights.
    """

    @property
    def gradients(self) -> list[Tensor]:
        """fp32 sums that backward's results are added to; always the same memory, on the tensors' device.

        Their content is undefined between ``step`` and ``discard``.
        """
        ...

    @property
    def masters(self) -> list[Tensor]:
        """fp32 weights; to be read only."""
        ...

    def restart(self, tensors: Sequence[Tensor], *, learning_rate: float, weight_decay: float) -> None:
        """Begin again from other values of the same tensors, as a new optimizer would, in the same memory."""
        ...

    def gradient_norm(self) -> Tensor:
        """2-norm of all gradients together, before clipping: a scalar on their device, not waited for."""
        ...

    def step(self, *, max_grad_norm: float, gradient_norm: float) -> None:
        """Update the masters from the gradients, scaled down to ``max_grad_norm``.

        Raises:
            TrainerFailed: ``gradient_norm`` is not finite, and the masters are unchanged; or the updated masters are
                not, and they are lost.
        """
        ...

    def write(self, targets: Sequence[Tensor]) -> None:
        """Round the masters of the last step into ``targets``, which are shaped as the tensors are. Call before
        ``discard``."""
        ...

    def discard(self) -> None:
        """Set the gradients to zero: before the first micro-batch of every step."""
        ...

    def export(self) -> dict[str, Tensor]:
        """Masters, moments and numbers of steps by name, not copied; what ``restore`` goes on from."""
        ...

    def restore(self, state: Iterable[tuple[str, Tensor]]) -> None:
        """Go on where an optimizer of the same tensors was, in the same memory, with its masters ready for ``write``.

        Learning rate and decay stay as they are. Gradients become undefined.

        Raises:
            TrainerFailed: names or shapes differ from ``export``'s; masters and moments are then undefined.
        """
        ...


class MasterAdamW:
    """Everything beside the tensors, on their device."""

    def __init__(self, tensors: Sequence[Tensor], *, learning_rate: float, weight_decay: float) -> None:
        """``tensors`` are copied, never kept."""
        self._masters = [nn.Parameter(fp32_copy(tensor)) for tensor in tensors]
        for master in self._masters:
            master.grad = torch.zeros_like(master)
        fused = all(master.is_cuda for master in self._masters)
        self._adamw = torch.optim.AdamW(
            self._masters, lr=learning_rate, weight_decay=weight_decay, fused=fused, foreach=not fused
        )

    @property
    def gradients(self) -> list[Tensor]:
        return [master.grad for master in self._masters if master.grad is not None]

    @property
    def masters(self) -> list[Tensor]:
        return [master.detach() for master in self._masters]

    def restart(self, tensors: Sequence[Tensor], *, learning_rate: float, weight_decay: float) -> None:
        """See Optimizer.restart."""
        with torch.no_grad():
            torch._foreach_copy_(self.masters, list(tensors))
            for state in self._adamw.state.values():
                for value in state.values():
                    value.zero_()
        self._adamw.param_groups[0] |= {"lr": learning_rate, "weight_decay": weight_decay}
        self.discard()

    def gradient_norm(self) -> Tensor:
        """See Optimizer.gradient_norm."""
        return torch.nn.utils.get_total_norm(self.gradients)

    def step(self, *, max_grad_norm: float, gradient_norm: float) -> None:
        """See Optimizer.step."""
        clip(self.gradients, max_grad_norm=max_grad_norm, gradient_norm=gradient_norm)
        self._adamw.step()
        check_finite(float(torch.nn.utils.get_total_norm(self.masters)))

    def write(self, targets: Sequence[Tensor]) -> None:
        """See Optimizer.write."""
        with torch.no_grad():
            torch._foreach_copy_(list(targets), self.masters)

    def discard(self) -> None:
        """See Optimizer.discard."""
        torch._foreach_zero_(self.gradients)

    def export(self) -> dict[str, Tensor]:
        """See Optimizer.export."""
        for master in self._masters:
            if not self._adamw.state[master]:  # torch makes them in the first step
                on_device = bool(self._adamw.param_groups[0]["fused"])
                self._adamw.state[master] = {
                    "step": torch.zeros((), dtype=torch.float32, device=master.device if on_device else None),
                    "exp_avg": torch.zeros_like(master),
                    "exp_avg_sq": torch.zeros_like(master),
                }
        moments = [self._adamw.state[master] for master in self._masters]
        return named_state(self.masters, moments)

    def restore(self, state: Iterable[tuple[str, Tensor]]) -> None:
        """See Optimizer.restore."""
        copy_state(self.export(), state)


def fp32_copy(tensor: Tensor) -> Tensor:
    """A contiguous copy in fp32, also of a tensor that is fp32 already."""
    return tensor.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)


def named_state(masters: Sequence[Tensor], moments: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """An optimizer's state as a checkpoint names it: ``master.0``, ``exp_avg.0``, ``exp_avg_sq.0``, ``step.0``, …"""
    named: dict[str, Tensor] = {}
    for number, (master, moment) in enumerate(zip(masters, moments, strict=True)):
        named[f"master.{number}"] = master
        named |= {f"{name}.{number}": value.detach() for name, value in moment.items()}
    return named


def copy_state(ours: Mapping[str, Tensor], theirs: Iterable[tuple[str, Tensor]]) -> None:
    """Copy tensors into those of the same names.

    Raises:
        TrainerFailed: names or shapes differ.
    """
    missing = set(ours)
    with torch.no_grad():
        for name, tensor in theirs:
            if name not in missing or ours[name].shape != tensor.shape:
                raise TrainerFailed(f"a checkpoint must fit the run's trained tensors, and {name} does not")
            ours[name].copy_(tensor)
            missing.discard(name)
    if missing:
        raise TrainerFailed(f"a checkpoint must hold every trained tensor, and lacks {min(missing)}")


def clip(gradients: Sequence[Tensor], *, max_grad_norm: float, gradient_norm: float) -> None:
    """Scale gradients of a known norm down to ``max_grad_norm``, in place.

    Raises:
        TrainerFailed: the norm is not finite.
    """
    if not math.isfinite(gradient_norm):
        raise TrainerFailed(f"the norm of the gradient must be finite, got {gradient_norm}")
    if gradient_norm > max_grad_norm:
        torch._foreach_mul_(list(gradients), max_grad_norm / gradient_norm)


def check_finite(norm: float) -> None:
    """Raises TrainerFailed unless the norm of the updated weights is finite."""
    if not math.isfinite(norm):
        raise TrainerFailed(f"the norm of the updated weights must be finite, got {norm}")
