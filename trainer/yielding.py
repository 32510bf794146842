"""The trainer's large kernels begin between the engine's steps, not beside them.

    engine's stream     ▌step▐                 ▌step▐
    trainer's stream    product │ waits ……… product product │ waits …

The engine's stream puts a step's number into a signal on the device when the step's forward begins there, and zero
when its tokens are sampled. In front of each large matrix product and each attention the trainer's stream waits for the
zero. A kernel that runs already is not interrupted, so that a step is held up once, by a part of a kernel and what is
small behind it; beside a trainer that never waits each of a step's hundreds of kernels would find processors taken.

The signal may be up while the engine itself waits for the trainer: for memory, or for a kernel's first launch, the
driver waits for everything on the device. So whoever waited for some milliseconds goes on, and nobody waits for that
step again. Without this, requests were seen to stall for ten seconds and more (README, "The engine room").
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.graphs import Program
from trainer.microbatch import Microbatch

_LARGE = 2**28
"""Multiplications of a product that is worth waiting for. At 4,096 tokens of a 1.5B model (Qwen2.5's shape) a layer's
smallest own product, the keys', has 4096 x 1536 x 256, or 2^30.6, and an adapter's narrow one 2^26.6."""
_PRODUCTS = ("mm", "addmm", "addmm_", "bmm", "baddbmm")
_ATTENTION = "_scaled_dot_product_"

_NUMBERS = 2**30

Wait = Callable[[], None]
"""Makes the current stream wait while an engine step is on the device, some milliseconds at most; returns at once."""


class StepSignal:
    """Whether an engine step is on the device, as the device knows it. The engine's thread begins and ends."""

    def __init__(self, device: torch.device, concerns: Callable[[], bool]) -> None:
        """``concerns`` says whether anybody might wait; a step that begins while nobody does is not signalled."""
        self.words = torch.zeros(2, dtype=torch.int32, device=device)
        """[2]: number of the step on the device or 0, and of the last one that somebody gave up."""
        self._current = self.words[:1]
        self._concerns = concerns
        self._in_step = False
        self._number = 0

    @property
    def step(self) -> int:
        """Number of the step on the device, 0 for none; waits for the device."""
        return int(self.words[0])

    def begin(self) -> None:
        """What is put on the current stream from here on is part of a step. Within a step it changes nothing."""
        if not self._in_step and self._concerns():
            self._number = self._number % _NUMBERS + 1
            self._current.fill_(self._number)
            self._in_step = True

    def end(self) -> None:
        """The step's last kernel is on the current stream."""
        if self._in_step:
            self._current.fill_(0)
            self._in_step = False

    def wait(self) -> None:
        """See ``Wait``. On a CUDA device only."""
        from trainer.triton_wait import wait_until_lowered

        wait_until_lowered(self.words)


@dataclass(frozen=True, slots=True)
class Yielding:
    """A program that waits in front of its large kernels, in its forward and its backward."""

    program: Program
    wait: Wait

    def __call__(self, microbatch: Microbatch) -> None:
        with yielding(self.wait):
            self.program(microbatch)


def yielding(wait: Wait | None) -> AbstractContextManager[Any]:
    """Within it this thread calls ``wait`` in front of each large kernel."""
    return nullcontext() if wait is None else _Before(wait)


class _Before(TorchDispatchMode):
    """Calls something in front of each large kernel. Autograd takes it along into its own threads."""

    def __init__(self, wait: Wait) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._wait = wait

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if _is_large(func, args):
            self._wait()
        return func(*args, **(kwargs or {}))


def _is_large(func: Any, args: tuple[Any, ...]) -> bool:
    name = func.overloadpacket.__name__
    if name.startswith(_ATTENTION):
        return True
    if name not in _PRODUCTS:
        return False
    left, right = [value for value in args if isinstance(value, Tensor)][-2:]
    return left.numel() * right.shape[-1] >= _LARGE
