"""The GRPO loss against values worked out by hand."""

import math

import pytest
import torch
from torch import Tensor

from trainer.loss import GrpoLoss, effective_sample_size, grpo_loss

MASK = torch.tensor([[True, True, False], [False, True, False]])
"""Two tokens in the first sequence, one in the second."""
HALVES = torch.tensor([0.5, 0.5])
"""The two sequences are the whole batch."""


def _loss(
    ratios: list[list[float]], advantages: list[float], weights: list[list[float]] | None = None
) -> tuple[GrpoLoss, Tensor]:
    """Loss and gradient where the policy's ratio to the proximal one, and that one's to the engine's, are given."""
    proximal = torch.full((2, 3), -1.5, dtype=torch.float64)
    importance = torch.ones(2, 3, dtype=torch.float64) if weights is None else torch.tensor(weights).double()
    logprobs = (proximal + torch.tensor(ratios).double().log()).requires_grad_()
    loss = grpo_loss(
        logprobs,
        proximal,
        proximal - importance.log(),
        torch.tensor(advantages).double(),
        MASK,
        HALVES,
        clip_low=0.2,
        clip_high=0.3,
        importance_cap=2.0,
    )
    loss.value.backward()
    assert logprobs.grad is not None
    return loss, logprobs.grad


def test_loss_of_two_sequences_of_different_length() -> None:
    """Each sequence counts once, whatever its length.

    First, A = 1:   ratio 1.5 is clipped to 1.3, weight 1:       -1.3
                    ratio 1.1, weight 3 is truncated to 2:       -1.1 x 2 = -2.2        mean -1.75
    Second, A = -2: ratio 0.5 is clipped to 0.8, weight 0.5:     0.8 x 2 x 0.5 = 0.8    mean 0.8
    Loss: (-1.75 + 0.8) / 2 = -0.475. Two tokens are clipped. Mismatch: log 1 + log 3 + log 2 = log 6.
    """
    loss, gradient = _loss([[1.5, 1.1, 9], [9, 0.5, 9]], [1.0, -2.0], [[1, 3, 5], [5, 0.5, 5]])
    assert loss.value.item() == pytest.approx(-0.475)
    assert int(loss.clipped) == 2
    assert float(loss.mismatch) == pytest.approx(math.log(6))
    assert loss.weights.tolist() == [pytest.approx([1, 3, 0]), pytest.approx([0, 0.5, 0])]
    # Only the unclipped token has a gradient: -ratio x A x weight / 2 tokens / 2 sequences = -1.1 x 2 / 4.
    assert gradient.tolist() == [pytest.approx([0, -0.55, 0]), pytest.approx([0, 0, 0])]


def test_the_clip_never_holds_back_a_correction() -> None:
    """A good token that became less likely, and a bad one that became more likely, keep their gradient.

    First, A = 1: ratios 0.5 and 1: -(0.5 + 1) / 2 = -0.75. Second, A = -1: ratio 2: +2. Loss (-0.75 + 2) / 2 = 0.625.
    """
    loss, gradient = _loss([[0.5, 1, 1], [1, 2, 1]], [1.0, -1.0])
    assert loss.value.item() == pytest.approx(0.625)
    assert int(loss.clipped) == 0
    assert gradient.tolist() == [pytest.approx([-0.125, -0.25, 0]), pytest.approx([0, 1, 0])]


def test_the_clip_range_is_asymmetric() -> None:
    """1.29 is inside 1 + 0.3, 1.31 is not; 0.81 is inside 1 - 0.2, 0.79 is not."""
    assert [int(_loss([[ratio, 1, 1], [1, 1, 1]], [1.0, 1.0])[0].clipped) for ratio in (1.29, 1.31)] == [0, 1]
    assert [int(_loss([[ratio, 1, 1], [1, 1, 1]], [-1.0, 1.0])[0].clipped) for ratio in (0.81, 0.79)] == [0, 1]


def test_descent_makes_good_tokens_likelier_and_bad_ones_less_likely() -> None:
    """The gradient has the opposite sign of the advantage on every sampled token, and is zero elsewhere."""
    _, gradient = _loss([[1, 1, 1], [1, 1, 1]], [0.5, -0.5])
    assert torch.sign(gradient).tolist() == [[-1, -1, 0], [0, 1, 0]]


def test_importance_weights_carry_no_gradient() -> None:
    """With the proximal policy being the trained one, as in one update per step, the gradient is -A w ratio / n."""
    logprobs = torch.tensor([[-1.0, -1.0, -1.0], [-1.0, -1.0, -1.0]], requires_grad=True)
    behaviour = torch.full((2, 3), -1.5)
    advantages = torch.tensor([1.0, 1.0])
    loss = grpo_loss(
        logprobs,
        logprobs.detach(),
        behaviour,
        advantages,
        MASK,
        HALVES,
        clip_low=0.2,
        clip_high=0.2,
        importance_cap=4.0,
    )
    loss.value.backward()
    assert logprobs.grad is not None
    assert logprobs.grad[1].tolist() == pytest.approx([0, -math.exp(0.5) / 2, 0])


def test_a_padding_row_adds_nothing() -> None:
    """A row without sampled tokens, of weight 0, leaves loss and gradient of the others as they are.

    Ratio 1, A = 1, weight 1 of the only real sequence, which is half of its batch: -1 x 0.5.
    """
    logprobs = torch.full((2, 3), -1.0, requires_grad=True)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    loss = grpo_loss(
        logprobs,
        logprobs.detach(),
        logprobs.detach(),
        torch.tensor([1.0, 0.0]),
        mask,
        torch.tensor([0.5, 0.0]),
        clip_low=0.2,
        clip_high=0.2,
        importance_cap=2.0,
    )
    loss.value.backward()
    assert loss.value.item() == pytest.approx(-0.5)
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [pytest.approx([-0.25, -0.25, 0]), [0, 0, 0]]


def test_effective_sample_size_is_one_for_equal_weights() -> None:
    """Four weights of 0.7: (4 x 0.7)^2 / (4 x 4 x 0.49) = 1."""
    assert effective_sample_size(2.8, 1.96, 4) == pytest.approx(1)


def test_effective_sample_size_of_unequal_weights() -> None:
    """Weights 1, 3 and 0.5: 4.5^2 / (3 (1 + 9 + 0.25)) = 20.25 / 30.75."""
    assert effective_sample_size(4.5, 10.25, 3) == pytest.approx(20.25 / 30.75)
