"""Where the trainer waits for the engine's steps, and that it does. The last part is for a machine with a GPU."""

import os
import subprocess
import sys
import time
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
    rows, weight = torch.randn(1024, 512, requires_grad=True), torch.randn(512, 512, requires_grad=True)
    product = nn.functional.linear
    assert _waits(lambda: product(rows, weight)) == 1
    assert _waits(lambda: product(rows, weight).sum().backward()) == 3
    assert _waits(lambda: rows.detach().addmm_(rows.detach(), weight.detach())) == 1
    assert _waits(lambda: torch.bmm(rows.detach().view(4, 256, 512), weight.detach().expand(4, 512, 512))) == 1


def test_waits_before_attention() -> None:
    """Its forward and its backward, however small: its size is not in its heads."""
    heads = torch.randn(1, 2, 8, 16, requires_grad=True)

    def attend() -> None:
        nn.functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True).sum().backward()

    assert _waits(attend) == 2


def test_waits_for_nothing_small() -> None:
    """An adapter's low-rank rows, and what is no product."""
    rows, low = torch.randn(1024, 512), torch.randn(512, 16)
    assert _waits(lambda: (rows @ low, rows.T @ (rows @ low), rows + rows, torch.relu(rows))) == 0


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
    assert signal.step == 0
    present[0] = True
    signal.end()
    signal.begin()
    signal.begin()
    assert signal.step == 1
    present[0] = False
    signal.end()
    assert signal.step == 0
    present[0] = True
    signal.begin()
    assert signal.step == 2


INTERPRETED = """
import torch
from trainer.triton_wait import wait_until_lowered

for step, given_up, most_reads, left in ((0, 0, 10**9, 0), (7, 6, 3, 7), (7, 7, 10**9, 7)):
    signal = torch.tensor([step, given_up], dtype=torch.int32)
    wait_until_lowered(signal, most_reads)
    assert signal.tolist() == [step, left], (step, given_up, signal)
print("ended")
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernel itself runs there, without the interpreter")
def test_the_kernel_ends() -> None:
    """At once without a step and where it was given up before, otherwise after its reads, giving it up; in Triton's
    interpreter."""
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
    time.sleep(0.002)
    assert not begun.query()
    with torch.cuda.stream(engine):
        signal.end()
    trainer.synchronize()
    assert out[0, 0].item() == 256


@on_cuda
def test_a_signal_that_stays_up_holds_nobody_for_ever() -> None:
    """Some milliseconds once a step, not at each wait, for an engine that waits for the trainer in its step."""
    signal = StepSignal(torch.device("cuda"), lambda: True)
    signal.wait()
    for _ in range(2):
        signal.begin()
        torch.cuda.synchronize()
        began, first, last = (torch.cuda.Event(enable_timing=True) for _ in range(3))
        began.record()
        signal.wait()
        first.record()
        for _ in range(100):
            signal.wait()
        last.record()
        last.synchronize()
        first_ms, others_ms = began.elapsed_time(first), first.elapsed_time(last)
        print(f"{first_ms:.1f} ms, then {others_ms:.1f} ms for a hundred")  # noqa: T201 - for the record
        assert 1 < first_ms < 100
        assert others_ms < first_ms
        signal.end()
