"""The losses against values worked out by hand."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.trainer.samples import SETTINGS
from trainer.loss import (
    PolicyLogprobs,
    PolicyLoss,
    effective_sample_size,
    k3,
    policy_loss,
    token_shares,
    watched_k3,
)
from trainer.objective_settings import ImportanceCorrection, LossType, ObjectiveSettings

GRPO = replace(SETTINGS.objective, clip_high=0.3)
MASK = torch.tensor([[True, True, False], [False, True, False]])
"""Two tokens in the first sequence, one in the second."""
ONES = ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
Rows = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True)
class Found:
    """A loss and its gradient by the current log-probabilities."""

    loss: PolicyLoss
    gradient: Tensor

    @property
    def value(self) -> float:
        return self.loss.value.item()

    @property
    def num_clipped(self) -> int:
        return int(self.loss.clipped.sum())


def _loss(
    ratios: Rows,
    advantages: tuple[float, float],
    weights: Rows = ONES,
    settings: ObjectiveSettings = GRPO,
    *,
    to_reference: Rows | None = None,
    logprob: float = -1.5,
) -> Found:
    """Where ratios are given: of the policy to the proximal one, of that one to the engine's, of the base to it.

    The current policy's log-probability is ``logprob`` everywhere, and the two sequences are the whole batch.
    """
    current = torch.full((2, 3), logprob, dtype=torch.float64, requires_grad=True)
    proximal = current.detach() - torch.tensor(ratios).double().log()
    reference = None if to_reference is None else current.detach() + torch.tensor(to_reference).double().log()
    logprobs = PolicyLogprobs(current, proximal, proximal - torch.tensor(weights).double().log(), reference)
    shares = token_shares(settings.loss, [2, 1], num_sequences=2, reply_tokens=4)
    loss = policy_loss(
        logprobs, torch.tensor(advantages).double(), MASK, torch.from_numpy(shares.astype(np.float64)), settings
    )
    loss.value.backward()
    assert current.grad is not None
    return Found(loss, current.grad)


def _close(found: Tensor, expected: list[list[float]]) -> bool:
    return bool(torch.allclose(found, torch.tensor(expected, dtype=torch.float64), atol=1e-7))


def test_loss_of_two_sequences_of_different_length() -> None:
    """Each sequence counts once, whatever its length.

    First, A = 1:   ratio 1.5 is clipped to 1.3, weight 1:       -1.3
                    ratio 1.1, weight 3 is truncated to 2:       -1.1 x 2 = -2.2        mean -1.75
    Second, A = -2: ratio 0.5 is clipped to 0.8, weight 0.5:     0.8 x 2 x 0.5 = 0.8    mean 0.8
    Loss: (-1.75 + 0.8) / 2 = -0.475. Two tokens are clipped.
    """
    found = _loss(((1.5, 1.1, 9), (9, 0.5, 9)), (1.0, -2.0), ((1, 3, 5), (5, 0.5, 5)))
    assert found.value == pytest.approx(-0.475)
    assert found.loss.clipped.tolist() == [[True, False, False], [False, True, False]]
    assert _close(found.loss.importance, [[1, 3, 0], [0, 0.5, 0]])
    # Only the unclipped token has a gradient: -ratio x A x weight / 2 tokens / 2 sequences = -1.1 x 2 / 4.
    assert _close(found.gradient, [[0, -0.55, 0], [0, 0, 0]])


@pytest.mark.parametrize(
    ("loss", "value", "gradient"),
    [
        # The first sequence's tokens give -1.3 and -2.2, the second's 0.8, as above; three tokens, L = 4.
        ("bnpo", (-1.3 - 2.2 + 0.8) / 3, [[0, -2.2 / 3, 0], [0, 0, 0]]),
        ("dapo", (-1.3 - 2.2 + 0.8) / 3, [[0, -2.2 / 3, 0], [0, 0, 0]]),
        ("dr_grpo", (-1.3 - 2.2 + 0.8) / (2 * 4), [[0, -2.2 / 8, 0], [0, 0, 0]]),
        # min(r, 1.3) A w log p: -(1.3 + 1.1 x 2) x -1.5 and -0.5 x -2 x 0.5 x -1.5; every token has a gradient.
        (
            "cispo",
            (3.5 * 1.5 - 0.5 * 1.5) / 3,
            [[-1.3 / 3, -2.2 / 3, 0], [0, 0.5 / 3, 0]],
        ),
    ],
)
def test_loss_types_differ_in_what_a_token_counts(loss: LossType, value: float, gradient: list[list[float]]) -> None:
    """The tokens of the first test; cispo bounds the ratio from above alone, as a constant before log p."""
    settings = replace(GRPO, loss=loss)
    found = _loss(((1.5, 1.1, 9), (9, 0.5, 9)), (1.0, -2.0), ((1, 3, 5), (5, 0.5, 5)), settings)
    assert found.value == pytest.approx(value)
    assert _close(found.gradient, gradient)
    assert found.num_clipped == (1 if loss == "cispo" else 2)


def test_gspo_has_one_ratio_for_a_sequence() -> None:
    """The geometric mean of its tokens' ratios, clipped as a whole.

    First, A = 1: ratios 1.6 and 0.9 make sqrt(1.44) = 1.2, below 1.3; weights 1 and 3 (bounded to 2) stay the tokens'
    own: -(1.2 + 2.4) / 2 = -1.8. Second, A = -1: ratio 0.5 is clipped to 0.8: 0.8. Loss (-1.8 + 0.8) / 2 = -0.5.
    """
    settings = replace(GRPO, loss="gspo")
    found = _loss(((1.6, 0.9, 9), (9, 0.5, 9)), (1.0, -1.0), ((1, 3, 5), (5, 1, 5)), settings)
    assert found.value == pytest.approx(-0.5)
    assert found.num_clipped == 1
    # Each token moves the sequence's log-ratio by a half: -1.2 (1 + 2) / 2 tokens / 2 sequences x 1/2.
    assert _close(found.gradient, [[-0.45, -0.45, 0], [0, 0, 0]])


def test_a_clipped_gspo_sequence_counts_with_all_its_tokens() -> None:
    """Ratios 1.6 and 1.225 make sqrt(1.96) = 1.4, above 1.3: both tokens, though one is inside the range alone."""
    found = _loss(((1.6, 1.225, 9), (9, 1, 9)), (1.0, -1.0), settings=replace(GRPO, loss="gspo"))
    assert found.loss.clipped.tolist() == [[True, True, False], [False, False, False]]


@pytest.mark.parametrize(
    ("correction", "value", "importance"),
    [
        # On-policy: the loss is -A w. Weights 0.5 and 3 of the first sequence (A = 1), 4 of the second (A = -1).
        ("none", (-1 + 1) / 2, [[0.5, 3, 0], [0, 4, 0]]),
        ("token_truncate", (-(0.5 + 2) / 2 + 2) / 2, [[0.5, 3, 0], [0, 4, 0]]),
        ("token_mask", (-0.5 / 2 + 0) / 2, [[0.5, 3, 0], [0, 4, 0]]),
        # Of whole sequences: 0.5 x 3 = 1.5, and 4.
        ("sequence_truncate", (-1.5 + 2) / 2, [[1.5], [4]]),
        ("sequence_mask", -1.5 / 2, [[1.5], [4]]),
    ],
)
def test_corrections_weigh_what_the_engine_sampled(
    correction: ImportanceCorrection, value: float, importance: list[list[float]]
) -> None:
    """Cut down to the cap of 2, or zero above it, token by token or with the product over a sequence."""
    settings = replace(GRPO, importance_correction=correction)
    found = _loss(ONES, (1.0, -1.0), ((0.5, 3, 5), (5, 4, 5)), settings)
    assert found.value == pytest.approx(value)
    assert _close(found.loss.importance, importance)


def test_a_weight_at_the_cap_is_not_masked() -> None:
    """Only what is above it: weights 2 and 2.001."""
    settings = replace(GRPO, importance_correction="token_mask")
    found = _loss(ONES, (1.0, 1.0), ((2, 2.001, 1), (1, 1, 1)), settings)
    assert found.value == pytest.approx((-2 / 2 - 1) / 2)


def test_coupled_clips_the_ratio_to_the_engine_and_corrects_nothing() -> None:
    """Ratios to the engine: 1.1 x 1.5 = 1.65 is clipped to 1.3, 1 x 0.9 = 0.9 is not, nor is 1 (A = -1).

    -(1.3 + 0.9) / 2 = -1.1 and 1: loss -0.05. Decoupled nothing would be clipped.
    """
    ratios, weights = ((1.1, 1, 1), (1, 1, 1)), ((1.5, 0.9, 1), (1, 1, 1))
    found = _loss(ratios, (1.0, -1.0), weights, replace(GRPO, objective="coupled"))
    assert found.value == pytest.approx(-0.05)
    assert found.num_clipped == 1
    assert _close(found.gradient, [[0, -0.9 / 4, 0], [0, 0.5, 0]])
    assert _loss(ratios, (1.0, -1.0), weights).num_clipped == 0


def test_coupled_never_weighs_sequences() -> None:
    """What is watched is the tokens' weights then, whatever correction is configured."""
    settings = replace(GRPO, objective="coupled", importance_correction="sequence_mask")
    found = _loss(ONES, (1.0, -1.0), ((0.5, 3, 5), (5, 4, 5)), settings)
    assert _close(found.loss.importance, [[0.5, 3, 0], [0, 4, 0]])


def test_kl_is_added_with_the_policy_ratio_and_without_the_correction() -> None:
    """A = 0, so the KL term alone is left: weight 0.1, k3 of a base that is twice as likely: 2 - log 2 - 1.

    First: ratios 1.5 and 1 (weights 1 and 3 do not count), second: the base agrees. The mean over the first's tokens is
    (1.5 + 1) / 2 k3; the second's is 0. Loss: 0.1 x 1.25 k3 / 2.
    """
    settings = replace(GRPO, kl_weight=0.1)
    k = 2 - math.log(2) - 1
    found = _loss(
        ((1.5, 1, 1), (1, 1, 1)), (0.0, 0.0), ((1, 3, 1), (1, 1, 1)), settings, to_reference=((2, 2, 7), (7, 1, 7))
    )
    assert found.value == pytest.approx(0.1 * 1.25 * k / 2)
    # d(r k3)/d log p = r (k3 + 1 - 2): 0.1 / 4 x 1.5 (k - 1), and 0.1 / 4 x (k - 1).
    assert _close(found.gradient, [[0.0375 * (k - 1), 0.025 * (k - 1), 0], [0, 0, 0]])


def test_k3_is_zero_for_equal_policies_and_positive_otherwise() -> None:
    """d = log 2: 2 - log 2 - 1; d = -log 2: 1/2 + log 2 - 1."""
    found = k3(torch.tensor([0.0, math.log(2), -math.log(2)])).tolist()
    assert found == pytest.approx([0, 1 - math.log(2), math.log(2) - 0.5])


def test_what_is_watched_stays_finite() -> None:
    """A token that one policy holds for impossible: e^20 - 201 at a gap of 200, where float32 has no e^200."""
    assert watched_k3(torch.tensor([200.0])).item() == pytest.approx(math.exp(20) - 21, rel=1e-5)
    found = _loss(ONES, (1.0, 1.0), ((math.exp(200), 1, 1), (1, 1, 1)))
    assert found.loss.importance[0, 0].item() == pytest.approx(math.exp(20))


def test_a_policy_that_left_all_its_samples_has_weights_all_the_same() -> None:
    """Each token e^200 times less likely than to the engine: weights of e^-20, never a sum of zeros to divide by."""
    gone = math.exp(-200)
    settings = replace(GRPO, importance_correction="sequence_truncate")
    found = _loss(ONES, (1.0, 1.0), ((gone, gone, 1), (1, gone, 1)), settings)
    assert found.loss.importance.tolist() == [[pytest.approx(math.exp(-20))]] * 2


def test_the_clip_never_holds_back_a_correction() -> None:
    """A good token that became less likely, and a bad one that became more likely, keep their gradient.

    First, A = 1: ratios 0.5 and 1: -(0.5 + 1) / 2 = -0.75. Second, A = -1: ratio 2: +2. Loss (-0.75 + 2) / 2 = 0.625.
    """
    found = _loss(((0.5, 1, 1), (1, 2, 1)), (1.0, -1.0))
    assert found.value == pytest.approx(0.625)
    assert found.num_clipped == 0
    assert _close(found.gradient, [[-0.125, -0.25, 0], [0, 1, 0]])


def test_the_clip_range_is_asymmetric() -> None:
    """1.29 is inside 1 + 0.3, 1.31 is not; 0.81 is inside 1 - 0.2, 0.79 is not."""
    assert [_loss(((ratio, 1, 1), (1, 1, 1)), (1.0, 1.0)).num_clipped for ratio in (1.29, 1.31)] == [0, 1]
    assert [_loss(((ratio, 1, 1), (1, 1, 1)), (-1.0, 1.0)).num_clipped for ratio in (0.81, 0.79)] == [0, 1]


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "bnpo", "dapo", "cispo", "gspo"])
def test_descent_makes_good_tokens_likelier_and_bad_ones_less_likely(loss: LossType) -> None:
    """The gradient has the opposite sign of the advantage on every sampled token, and is zero elsewhere."""
    found = _loss(ONES, (0.5, -0.5), settings=replace(GRPO, loss=loss))
    assert torch.sign(found.gradient).tolist() == [[-1, -1, 0], [0, 1, 0]]


def test_importance_weights_carry_no_gradient() -> None:
    """With the proximal policy being the trained one, as in one update per step, the gradient is -A w ratio / n."""
    current = torch.full((2, 3), -1.0, requires_grad=True)
    logprobs = PolicyLogprobs(current, current.detach(), torch.full((2, 3), -1.5), None)
    settings = replace(GRPO, importance_cap=4.0)
    loss = policy_loss(logprobs, torch.tensor([1.0, 1.0]), MASK, torch.tensor([0.25, 0.5]), settings)
    loss.value.backward()
    assert current.grad is not None
    assert current.grad[1].tolist() == pytest.approx([0, -math.exp(0.5) / 2, 0])


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "bnpo", "dapo", "cispo", "gspo"])
@pytest.mark.parametrize("correction", ["none", "token_mask", "sequence_truncate"])
def test_a_padding_row_adds_nothing(loss: LossType, correction: ImportanceCorrection) -> None:
    """A row without sampled tokens, of share 0: loss, gradient and weights are those of the other row alone."""
    settings = replace(GRPO, loss=loss, importance_correction=correction, kl_weight=0.1)
    results = []
    for num_rows in (1, 2):
        current = torch.full((num_rows, 3), -1.0, requires_grad=True)
        mask = torch.tensor([[True, True, False], [False, False, False]])[:num_rows]
        logprobs = PolicyLogprobs(
            current, current.detach() - 0.1, current.detach() - 0.3, torch.full((num_rows, 3), -2.0)
        )
        shares, advantages = torch.tensor([0.5, 0.0])[:num_rows], torch.tensor([1.0, 7.0])[:num_rows]
        policy = policy_loss(logprobs, advantages, mask, shares, settings)
        policy.value.backward()
        assert current.grad is not None
        results.append([policy.value.item(), policy.importance.sum().item(), *current.grad[0].tolist()])
        assert not current.grad[1:].any()
    assert results[1] == pytest.approx(results[0])


@pytest.mark.parametrize(
    ("loss", "shares"),
    [
        ("grpo", [1 / (2 * 2), 1 / (2 * 4)]),
        ("gspo", [1 / (2 * 2), 1 / (2 * 4)]),
        ("bnpo", [1 / 6, 1 / 6]),
        ("dapo", [1 / 6, 1 / 6]),
        ("cispo", [1 / 6, 1 / 6]),
        ("dr_grpo", [1 / (2 * 8), 1 / (2 * 8)]),
    ],
)
def test_a_token_s_share_of_the_batch(loss: LossType, shares: list[float]) -> None:
    """Of two sequences of 2 and 4 tokens, of which each might have had 8."""
    assert token_shares(loss, [2, 4], num_sequences=2, reply_tokens=8).tolist() == pytest.approx(shares)


def test_masked_sequences_count_in_means_over_sequences() -> None:
    """One sequence is left of two: it weighs a half, as beside a reply that adds nothing."""
    assert token_shares("grpo", [5], num_sequences=2, reply_tokens=8).tolist() == pytest.approx([0.1])
    assert token_shares("dr_grpo", [5], num_sequences=2, reply_tokens=8).tolist() == [1 / 16]
    assert token_shares("dapo", [5], num_sequences=2, reply_tokens=8).tolist() == pytest.approx([0.2])


def test_effective_sample_size_is_one_for_equal_weights() -> None:
    """Four weights of 0.7: (4 x 0.7)^2 / (4 x 4 x 0.49) = 1."""
    assert effective_sample_size(2.8, 1.96, 4) == pytest.approx(1)


def test_effective_sample_size_of_unequal_weights() -> None:
    """Weights 1, 3 and 0.5: 4.5^2 / (3 (1 + 9 + 0.25)) = 20.25 / 30.75."""
    assert effective_sample_size(4.5, 10.25, 3) == pytest.approx(20.25 / 30.75)
