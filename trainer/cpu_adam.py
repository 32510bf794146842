"""AdamW with masters and moments in host memory, stepped there by DeepSpeed: for an optimizer that the GPU cannot hold.

    GPU    gradients (fp32) ──┐                       ┌──► staging: the gradients' own memory ──write──► the tensors
                              │ pinned buffers        │ pinned buffers
    host                      └──► DeepSpeedCPUAdam ──┘
                                   masters, moments

Tensors travel in pieces, so that copies in both directions and the arithmetic overlap, and because DeepSpeed holds
Python's lock while it works on a piece: the engine's thread waits for one of them at most. Only the buffers are pinned;
masters and moments never travel. On a CPU there is nothing to copy.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from agent.errors import TrainerFailed
from trainer.optimizer import check_finite, clip, copy_state, fp32_copy, named_state

_PIECE = 2**21
"""Elements of a piece: about 60 MB of host memory are read and written for one, within a millisecond on 16 cores."""
_NUM_BUFFERS = 4


class CpuAdamW:
    """trainer.optimizer.Optimizer that keeps nothing on the GPU but the gradients."""

    def __init__(self, tensors: Sequence[Tensor], *, learning_rate: float, weight_decay: float) -> None:
        """``tensors`` are copied, never kept. The first one of a machine compiles DeepSpeed's operator (a minute).

        Raises:
            TrainerFailed: DeepSpeed is not installed, or its operator cannot be compiled; the message says what to
                install.
        """
        self._masters = [fp32_copy(tensor).cpu() for tensor in tensors]
        self._gradients = [torch.zeros(tensor.shape, device=tensor.device) for tensor in tensors]
        self._staging = [_reinterpreted(g, t.dtype) for g, t in zip(self._gradients, tensors, strict=True)]
        self._staged = False
        self._pieces = [nn.Parameter(piece) for piece in _pieces(self._masters)]
        self._adamw = _deepspeed_adamw(self._pieces, lr=learning_rate, weight_decay=weight_decay)
        self._carrier = _Carrier(tensors[0].dtype) if tensors[0].is_cuda else None

    @property
    def gradients(self) -> list[Tensor]:
        return self._gradients

    @property
    def masters(self) -> list[Tensor]:
        return self._masters

    def restart(self, tensors: Sequence[Tensor], *, learning_rate: float, weight_decay: float) -> None:
        """See Optimizer.restart."""
        with torch.no_grad():
            for master, tensor in zip(self._masters, tensors, strict=True):
                master.copy_(tensor)
        self._adamw = _deepspeed_adamw(self._pieces, lr=learning_rate, weight_decay=weight_decay)
        self.discard()

    def gradient_norm(self) -> Tensor:
        """See Optimizer.gradient_norm."""
        return torch.nn.utils.get_total_norm(self._gradients)

    def step(self, *, max_grad_norm: float, gradient_norm: float) -> None:
        """See Optimizer.step. Waits for the gradients and leaves the new weights staged on the tensors' device."""
        clip(self._gradients, max_grad_norm=max_grad_norm, gradient_norm=gradient_norm)
        if self._carrier is None:
            self._step_in_place()
        else:
            self._step_through(self._carrier)
        norms = torch._foreach_norm(self._staging, 2, torch.float32)
        check_finite(float(torch.linalg.vector_norm(torch.stack(norms))))
        self._staged = True

    def write(self, targets: Sequence[Tensor]) -> None:
        """See Optimizer.write.

        Raises:
            TrainerFailed: nothing is staged, because no step was taken or its gradients were discarded since.
        """
        if not self._staged:
            raise TrainerFailed("a step must come before its weights can be written, and discard after it")
        with torch.no_grad():
            torch._foreach_copy_(list(targets), self._staging)

    def discard(self) -> None:
        """See Optimizer.discard."""
        self._staged = False
        torch._foreach_zero_(self._gradients)

    def export(self) -> dict[str, Tensor]:
        """See Optimizer.export; one entry for each piece."""
        return named_state([piece.detach() for piece in self._pieces], [self._moments(piece) for piece in self._pieces])

    def restore(self, state: Iterable[tuple[str, Tensor]]) -> None:
        """See Optimizer.restore."""
        exported = self.export()
        copy_state(exported, state)
        for number, piece in enumerate(self._pieces):
            self._adamw.state[piece]["step"] = int(exported[f"step.{number}"])
        self._stage()
        self._staged = True

    def _moments(self, piece: nn.Parameter) -> dict[str, Tensor]:
        """A piece's own moments, which DeepSpeed makes in the first step, and a copy of its number of steps."""
        state = self._adamw.state[piece]
        if not state:
            state |= {"step": 0, "exp_avg": torch.zeros_like(piece), "exp_avg_sq": torch.zeros_like(piece)}
        return {"step": torch.tensor(state["step"]), "exp_avg": state["exp_avg"], "exp_avg_sq": state["exp_avg_sq"]}

    def _stage(self) -> None:
        """Round the masters into the gradients' memory, on the tensors' device."""
        if self._carrier is None:
            torch._foreach_copy_(self._staging, self._masters)
        else:
            for piece, staging in zip(self._pieces, _pieces(self._staging), strict=True):
                self._carrier.send(piece.detach(), staging)

    def _step_in_place(self) -> None:
        for piece, gradient in zip(self._pieces, _pieces(self._gradients), strict=True):
            self._update(piece, gradient)
        self._stage()

    def _step_through(self, carrier: "_Carrier") -> None:
        arriving = carrier.fetch(_pieces(self._gradients))
        for piece, gradient, staging in zip(self._pieces, arriving, _pieces(self._staging), strict=True):
            self._update(piece, gradient)
            carrier.send(piece.detach(), staging)

    def _update(self, piece: nn.Parameter, gradient: Tensor) -> None:
        self._adamw.param_groups[0]["params"] = [piece]  # its step() looks at every parameter of the group
        piece.grad = gradient
        self._adamw.step()
        piece.grad = None


class _Carrier:
    """Copies pieces between the current GPU and the host, a few ahead of the arithmetic."""

    def __init__(self, dtype: torch.dtype) -> None:
        """``dtype`` is that of the pieces that are sent."""
        self._inboxes = [torch.empty(_PIECE, pin_memory=True) for _ in range(_NUM_BUFFERS)]
        self._outboxes = [torch.empty(_PIECE, dtype=dtype, pin_memory=True) for _ in range(_NUM_BUFFERS)]
        self._arrived = [torch.cuda.Event(blocking=True) for _ in range(_NUM_BUFFERS)]
        self._left = [torch.cuda.Event(blocking=True) for _ in range(_NUM_BUFFERS)]
        self._num_sent = 0

    def fetch(self, pieces: Sequence[Tensor]) -> Iterator[Tensor]:
        """Each piece's values in host memory, valid until the next one is asked for."""
        for index in range(min(_NUM_BUFFERS, len(pieces))):
            self._request(index, pieces)
        for index, piece in enumerate(pieces):
            slot = index % _NUM_BUFFERS
            self._arrived[slot].synchronize()
            yield self._inboxes[slot][: piece.numel()]
            if index + _NUM_BUFFERS < len(pieces):
                self._request(index + _NUM_BUFFERS, pieces)

    def send(self, values: Tensor, target: Tensor) -> None:
        """Round a piece's new values and copy them to the GPU behind the stream's work so far."""
        slot = self._num_sent % _NUM_BUFFERS
        self._num_sent += 1
        self._left[slot].synchronize()
        outbox = self._outboxes[slot][: values.numel()].copy_(values)
        target.copy_(outbox, non_blocking=True)
        self._left[slot].record()

    def _request(self, index: int, pieces: Sequence[Tensor]) -> None:
        slot, piece = index % _NUM_BUFFERS, pieces[index]
        self._inboxes[slot][: piece.numel()].copy_(piece, non_blocking=True)
        self._arrived[slot].record()


def _pieces(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Flat views of at most ``_PIECE`` elements."""
    return [piece for tensor in tensors for piece in tensor.view(-1).split(_PIECE)]


def _reinterpreted(gradient: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor of ``dtype`` in the first bytes of the gradient's memory.

    A piece written there lies before every gradient piece that is still to be read: its elements are not larger.
    """
    return gradient.view(-1).view(dtype)[: gradient.numel()].view(gradient.shape)


def _deepspeed_adamw(parameters: Sequence[nn.Parameter], *, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """DeepSpeed's AdamW for CPUs, compiled on first use.

    Raises:
        TrainerFailed: it is not installed or cannot be compiled.
    """
    # DeepSpeed is told that the CPU is its accelerator: for a GPU it would want CUDA's own compiler for this operator.
    # pip puts ninja beside Python, where it is found only in an activated environment.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    with _environment({"DS_ACCELERATOR": "cpu", "PATH": path}):
        try:
            from deepspeed.ops.adam import DeepSpeedCPUAdam

            optimizer: Any = DeepSpeedCPUAdam(parameters, lr=lr, weight_decay=weight_decay, adamw_mode=True)
        except ImportError as error:
            raise TrainerFailed(
                f'tuning.optimizer = "cpu" needs DeepSpeed, and {error}: pip install "coloq[deepspeed]"'
            ) from error
        except RuntimeError as error:
            raise TrainerFailed(
                'tuning.optimizer = "cpu" compiles DeepSpeed\'s CPU Adam on first use, which needs a C++ compiler and '
                f"ninja (on Debian: apt-get install g++ ninja-build) and failed: {error.__cause__ or error}"
            ) from error
    return optimizer  # type: ignore[no-any-return]  # DeepSpeed is not followed by mypy


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """The process's environment with ``variables``, for the time of the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
