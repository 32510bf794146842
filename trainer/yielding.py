"""The trainer's large kernels begin between the engine's steps, not beside them.

    engine's stream     ▌step▐                 ▌step▐
    trainer's stream    product │ waits ……… product product │ waits …

The engine's stream raises a signal on the device when a step begins there and lowers it when the step has ended. In
front of each large matrix product and each attention the trainer's stream waits until it is lowered. A kernel that runs
already is not interrupted, so that a step is held up by a part of one kernel at the most, once; beside a trainer that
never waits each of a step's hundreds of kernels would find multiprocessors taken.
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

_NARROW = 128
"""A product with a side narrower than this, such as an adapter's rank, takes microseconds: not worth waiting for."""
_PRODUCTS = ("mm", "addmm", "addmm_", "bmm", "baddbmm")
_ATTENTION = "_scaled_dot_product_"

Wait = Callable[[], None]
"""Makes the current stream wait until no engine step is on the device, or for some milliseconds; returns at once."""


class StepSignal:
    """Whether an engine step is on the device, as the device knows it. The engine's thread begins and ends."""

    def __init__(self, device: torch.device, concerns: Callable[[], bool]) -> None:
        """``concerns`` says whether anybody might wait; a step that begins while nobody does is not signalled."""
        self.raised = torch.zeros(1, dtype=torch.int32, device=device)
        self._concerns = concerns
        self._in_step = False

    def begin(self) -> None:
        """What is put on the current stream from here on is part of a step."""
        if self._concerns():
            self.raised.fill_(1)
            self._in_step = True

    def end(self) -> None:
        """The step's last kernel is on the current stream."""
        if self._in_step:
            self.raised.fill_(0)
            self._in_step = False

    def wait(self) -> None:
        """See ``Wait``. On a CUDA device only."""
        from trainer.triton_wait import wait_until_lowered

        wait_until_lowered(self.raised)


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
    return bool(min(*left.shape[-2:], right.shape[-1]) >= _NARROW)
