"""Chunked log-probabilities under a frozen and a trained head, against log_softmax over all logits at once."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from trainer.head import residuals, token_logprobs, token_scores


def _reference(hidden: Tensor, head: Tensor, targets: Tensor, temperature: float) -> Tensor:
    return torch.log_softmax(hidden @ head.T / temperature, dim=1)[torch.arange(len(hidden)), targets]


@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("chunk_tokens", [1, 3, 7])
def test_chunked_logprobs_are_log_softmax(chunk_tokens: int, temperature: float, trained: bool) -> None:
    """Whatever the chunk, values and gradients are those of log_softmax, the head's too when it is trained."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 4, generator=generator)
    head = torch.randn(11, 4, generator=generator)
    targets = torch.randint(11, (7,), generator=generator)
    weights = torch.randn(7, generator=generator)
    ours, theirs = [(hidden.clone().requires_grad_(), head.clone().requires_grad_(trained)) for _ in range(2)]
    values = token_logprobs(*ours, targets, temperature=temperature, chunk_tokens=chunk_tokens)
    expected = _reference(*theirs, targets, temperature)
    (values * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(values, expected)
    torch.testing.assert_close(ours[0].grad, theirs[0].grad)
    if trained:
        torch.testing.assert_close(ours[1].grad, theirs[1].grad)
    else:
        assert ours[1].grad is None


def test_a_residual_is_one_hot_minus_softmax() -> None:
    """Logits 0 and log 3 at temperature 1: softmax is 1/4 and 3/4, the target is the second."""
    logprobs, _, residual = residuals(torch.tensor([[0.0, math.log(3)]]), torch.tensor([1]), 1.0)
    assert logprobs.tolist() == pytest.approx([math.log(0.75)])
    assert residual.tolist() == [pytest.approx([-0.25, 0.25])]


def test_entropy_is_that_of_the_whole_distribution() -> None:
    """Logits 0 and 0.7 log 3 at temperature 0.7 make 1/4 and 3/4, whatever the target:
    1/4 log 4 + 3/4 log (4/3) = 0.5623."""
    logits = torch.tensor([[0.0, 0.7 * math.log(3)]] * 2)
    _, entropies, _ = residuals(logits, torch.tensor([0, 1]), 0.7)
    assert entropies.tolist() == pytest.approx([0.25 * math.log(4) + 0.75 * math.log(4 / 3)] * 2)


@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
def test_entropies_carry_no_gradient(trained: bool) -> None:
    """They are those of log_softmax, chunk by chunk, and are watched only: in a loss they count as constants."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, 4, generator=generator).requires_grad_()
    head = torch.randn(11, 4, generator=generator).requires_grad_(trained)
    scores = token_scores(hidden, head, torch.arange(5), temperature=0.7, chunk_tokens=2)
    logs = torch.log_softmax(hidden @ head.T / 0.7, dim=1)
    torch.testing.assert_close(scores.entropies, -(logs.exp() * logs).sum(1).detach())
    assert not scores.entropies.requires_grad
    (scores.logprobs * scores.entropies).sum().backward()
    assert hidden.grad is not None
    with_scores = hidden.grad.clone()
    hidden.grad = None
    (logs[torch.arange(5), torch.arange(5)] * scores.entropies).sum().backward()
    torch.testing.assert_close(with_scores, hidden.grad)


INTERPRETED = """
import torch
from trainer.head import residuals
from trainer.triton_residuals import residuals_in_place

for columns in (7, 9001):
    logits = 3 * torch.randn(3, columns, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, columns - 1, 5])
    expected = residuals(logits, targets, 0.7)
    for ours, theirs in zip(residuals_in_place(logits.clone(), targets, 0.7), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)
print("equal")
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernel itself is compared here, without the interpreter")
def test_the_kernel_computes_what_a_cpu_does() -> None:
    """The GPU's kernel in Triton's interpreter, in a process of its own, where the interpreter is chosen at import:
    vocabularies below its block and of two blocks and a part."""
    pytest.importorskip("triton", reason="no Triton for this platform")
    root = Path(__file__).parents[2]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "equal\n", done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="Triton's version needs a CUDA device")
@pytest.mark.parametrize("columns", [7, 4096, 9001])
def test_a_gpu_computes_what_a_cpu_does(columns: int) -> None:
    """Vocabularies below, at and above the kernel's block, not a multiple of it: all three results."""
    logits = 3 * torch.randn(5, columns, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, columns - 1, 3, 5, 6])
    expected = residuals(logits, targets, 0.7)
    found = residuals(logits.cuda(), targets.cuda(), 0.7)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-5, atol=1e-5)


def test_the_residual_of_a_likely_token_keeps_its_digits_in_bf16() -> None:
    """p = 1 / (1 + e^-8): 1 - p = 3.35e-4 has a relative error of bf16's 2^-9, not of 1's."""
    logits = torch.tensor([[8.0, 0.0]], dtype=torch.bfloat16)
    *_, residual = residuals(logits, torch.tensor([0]), 1.0)
    assert residual[0, 0].item() == pytest.approx(1 - 1 / (1 + math.exp(-8)), rel=2**-8)


def test_logprobs_are_float32_whatever_the_model_computes_in() -> None:
    """In bf16 the logits are rounded, the normalisation is not."""
    hidden, head = torch.ones(2, 4, dtype=torch.bfloat16), torch.eye(4, dtype=torch.bfloat16)
    values = token_logprobs(hidden, head, torch.tensor([0, 3]), temperature=1.0, chunk_tokens=8)
    assert values.dtype is torch.float32
    assert values.tolist() == pytest.approx([math.log(0.25)] * 2)
