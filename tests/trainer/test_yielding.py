"""Where the trainer waits for the engine's steps, and that it does. The last part is for a machine with a GPU."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.trainer.samples import SETTINGS, completion, tiny_llama
from trainer.batch import TrainingBatch, build_batch
from trainer.group import TrainingSequence
from trainer.learner import Learner
from trainer.ports import Method
from trainer.yielding import StepSignal, yielding

on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="a device's streams")


class Waits:
    """Counts."""

    def __init__(self) -> None:
        self.num = 0

    def __call__(self) -> None:
        self.num += 1


def _waits(compute: Callable[[], object]) -> int:
    waits = Waits()
    with yielding(waits):
        compute()
    return waits.num


def _batch() -> TrainingBatch:
    reply = completion((5, 6, 7), prompt=(3, 4), logprobs=(-3.0, -3.0, -3.0))
    return build_batch([TrainingSequence(reply, advantage, "de") for advantage in (1.0, -1.0)])


def test_waits_before_products_forward_and_backward() -> None:
    """A linear layer's product, and its two gradients' products; autograd's threads know of it."""
    rows, weight = torch.randn(256, 256, requires_grad=True), torch.randn(256, 256, requires_grad=True)
    product = nn.functional.linear
    assert _waits(lambda: product(rows, weight)) == 1
    assert _waits(lambda: product(rows, weight).sum().backward()) == 3
    assert _waits(lambda: rows.detach().addmm_(rows.detach(), weight.detach())) == 1


def test_waits_before_attention() -> None:
    """Its forward and its backward, however small: its size is not in its heads."""
    heads = torch.randn(1, 2, 8, 16, requires_grad=True)

    def attend() -> None:
        nn.functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True).sum().backward()

    assert _waits(attend) == 2


def test_waits_for_nothing_small() -> None:
    """Products with an adapter's rank, and what is no product."""
    rows, low = torch.randn(256, 256), torch.randn(256, 16)
    assert _waits(lambda: (rows @ low, low.T @ rows, rows + rows, torch.relu(rows))) == 0


@pytest.mark.parametrize("method", ["adapter", "full"])
def test_a_step_that_yields_computes_the_same(method: Method) -> None:
    """Bit for bit; and it does wait, unless the settings say otherwise."""
    settings = replace(SETTINGS, method=method)
    results, counts = [], []
    for yields in (True, False):
        waits = Waits()
        learner = Learner(tiny_llama(), base_model="tiny", wait=waits)
        learner.begin(replace(settings, yield_to_engine=yields), None)
        learner.step(_batch())
        results.append(learner.snapshot())
        counts.append(waits.num)
    assert counts[0] > 0
    assert counts[1] == 0
    assert results[0].keys() == results[1].keys()
    assert all(torch.equal(tensor, results[1][name]) for name, tensor in results[0].items())


def test_a_step_is_signalled_while_somebody_may_wait() -> None:
    """A step that began unsignalled ends so, and one that began signalled is lowered whoever is there."""
    present = [False]
    signal = StepSignal(torch.device("cpu"), lambda: present[0])
    signal.begin()
    assert signal.raised.item() == 0
    present[0] = True
    signal.end()
    signal.begin()
    assert signal.raised.item() == 1
    present[0] = False
    signal.end()
    assert signal.raised.item() == 0


INTERPRETED = """
import torch
from trainer.triton_wait import wait_until_lowered

for raised, most_reads in ((0, 10**9), (1, 3)):
    wait_until_lowered(torch.tensor([raised], dtype=torch.int32), most_reads)
print("ended")
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernel itself runs there, without the interpreter")
def test_the_kernel_ends() -> None:
    """At once where the signal is low, and after its reads where it stays up; in Triton's interpreter."""
    pytest.importorskip("triton", reason="no Triton for this platform")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "ended\n", done.stderr


@on_cuda
@pytest.mark.parametrize("captured", [False, True])
def test_a_stream_waits_for_the_signal(captured: bool) -> None:
    """A product behind the wait has not run while the signal is up, and runs once it is lowered on another stream."""
    device = torch.device("cuda")
    signal = StepSignal(device, lambda: True)
    engine, trainer = torch.cuda.Stream(priority=-1), torch.cuda.Stream()
    rows = torch.ones(256, 256, device=device)
    out = torch.zeros_like(rows)

    def multiply() -> None:
        with yielding(signal.wait):
            torch.mm(rows, rows, out=out)

    with torch.cuda.stream(trainer):
        multiply()
        trainer.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=trainer):
            multiply()
        out.zero_()
        trainer.synchronize()
    with torch.cuda.stream(engine):
        signal.begin()
        engine.synchronize()
    with torch.cuda.stream(trainer):
        graph.replay() if captured else multiply()
        begun = torch.cuda.Event()
        begun.record(trainer)
    torch.cuda._sleep(2_000_000)  # a millisecond of the device's clock
    torch.cuda.current_stream().synchronize()
    assert not begun.query()
    with torch.cuda.stream(engine):
        signal.end()
    trainer.synchronize()
    assert out[0, 0].item() == 256


@on_cuda
def test_a_signal_that_stays_up_holds_nobody_for_ever() -> None:
    """Some milliseconds a wait, for an engine whose step never ended."""
    signal = StepSignal(torch.device("cuda"), lambda: True)
    signal.begin()
    signal.wait()
    torch.cuda.synchronize()
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    signal.wait()
    ended.record()
    ended.synchronize()
    elapsed_ms = began.elapsed_time(ended)
    print(f"{elapsed_ms:.1f} ms")  # noqa: T201 - for the record
    assert 1 < elapsed_ms < 100
