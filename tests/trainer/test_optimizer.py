"""fp32 masters beside compute-precision parameters."""

import pytest
import torch
from torch import nn

from agent.errors import TrainerFailed
from trainer.optimizer import MasterAdamW


def test_in_fp32_it_is_adamw() -> None:
    """Five steps with decay and gradient clipping give torch's AdamW to the last bit but rounding."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, 4, generator=generator)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizer = MasterAdamW([ours], learning_rate=0.05, weight_decay=0.1)
    reference = torch.optim.AdamW([theirs], lr=0.05, weight_decay=0.1)
    for _ in range(5):
        gradient = torch.randn(3, 4, generator=generator)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        optimizer.collect()
        norm = optimizer.gradient_norm()
        optimizer.step(max_grad_norm=1.0, gradient_norm=norm)
        torch.nn.utils.clip_grad_norm_([theirs], 1.0)
        reference.step()
        torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=0, atol=1e-6)


def test_masters_keep_updates_that_bf16_would_lose() -> None:
    """Steps of 1e-4 from 1.0: bf16 has a spacing of 2^-7 there and would stay; forty masters' steps reach 0.996.

    0.996 lies 0.0040 below 1.0, more than half of bf16's spacing of 2^-8 below one, so the parameter has moved by one.
    """
    parameter = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    optimizer = MasterAdamW([parameter], learning_rate=1e-4, weight_decay=0.0)
    for _ in range(40):
        parameter.grad = torch.ones(1, dtype=torch.bfloat16)
        optimizer.collect()
        optimizer.step(max_grad_norm=10.0, gradient_norm=1.0)
    assert parameter.item() == 1 - 2**-8
    naive = torch.ones(1, dtype=torch.bfloat16)
    for _ in range(40):
        naive -= 1e-4
    assert naive.item() == 1.0


def test_gradients_add_up_over_micro_batches() -> None:
    """(3, 0) and (0, 4) make (3, 4), whose norm is 5; what was collected is freed."""
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = MasterAdamW([parameter], learning_rate=0.1, weight_decay=0.0)
    for gradient in ([3.0, 0.0], [0.0, 4.0]):
        parameter.grad = torch.tensor(gradient)
        optimizer.collect()
        assert parameter.grad is None
    assert optimizer.gradient_norm() == 5.0


def test_discarded_gradients_are_gone() -> None:
    """Collected or not, nothing of them is in the next step."""
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = MasterAdamW([parameter], learning_rate=0.1, weight_decay=0.0)
    parameter.grad = torch.tensor([float("nan")])
    optimizer.collect()
    parameter.grad = torch.tensor([7.0])
    optimizer.discard()
    optimizer.collect()
    assert optimizer.gradient_norm() == 0.0


def test_an_update_that_is_not_finite_is_taken_back() -> None:
    """An infinite learning rate is refused, and the weight is what it was."""
    parameter = nn.Parameter(torch.tensor([0.5]))
    optimizer = MasterAdamW([parameter], learning_rate=float("inf"), weight_decay=0.0)
    parameter.grad = torch.ones(1)
    optimizer.collect()
    with pytest.raises(TrainerFailed, match="updated weights must be finite"):
        optimizer.step(max_grad_norm=1.0, gradient_norm=1.0)
    assert parameter.item() == 0.5
