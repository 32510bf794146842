"""What a step reports, from tallies worked out by hand."""

import math
from dataclasses import replace

import pytest
import torch

from agent.errors import TrainerFailed
from tests.trainer.samples import SETTINGS, completion
from trainer.batch import build_batch
from trainer.group import TrainingSequence
from trainer.loss import PolicyLogprobs, policy_loss
from trainer.tally import Tally, Totals, Update, step_result

GRPO = SETTINGS.objective
BATCH = build_batch(
    [TrainingSequence(completion((20, 21, 22)), 1.0, "de"), TrainingSequence(completion((23,)), -1.0, "de")]
)
"""Two sequences, four tokens."""


def test_a_tally_adds_tokens_up() -> None:
    """Two tokens count, the third is padding.

    Current over proximal: 1.5 and 1; proximal over behaviour: 0.5 and 4; base over current: 1 and 2.
    Loss, A = 1, shares 1/2: (-1.2 x 0.5 - 1 x 2) / 2 = -1.3 without KL. One is clipped. Weights 0.5 + 4, squares
    0.25 + 16. Entropies 1 + 3. |log 0.5| + log 4 = 3 log 2, at most log 4. k3 of behaviour to current: ratios 0.75 and
    4: (0.75 - log 0.75 - 1) + (4 - log 4 - 1); of current to the base: 0 and 2 - log 2 - 1.
    """
    mask = torch.tensor([[True, True, False]])
    current = torch.full((1, 3), -2.0, dtype=torch.float64, requires_grad=True)
    proximal = current.detach() - torch.tensor([[1.5, 1.0, 7.0]]).double().log()
    behaviour = proximal - torch.tensor([[0.5, 4.0, 7.0]]).double().log()
    reference = current.detach() + torch.tensor([[1.0, 2.0, 7.0]]).double().log()
    logprobs = PolicyLogprobs(current, proximal, behaviour, reference)
    shares = torch.tensor([0.5], dtype=torch.float64)
    loss = policy_loss(logprobs, torch.ones(1, dtype=torch.float64), mask, shares, GRPO)
    tally = Tally(torch.device("cpu"))
    for _ in range(2):
        tally.add(loss, logprobs, torch.tensor([[1.0, 3.0, 9.0]]), mask)
    found = tally.read()
    expected = Totals(
        loss=-1.3,
        clipped=1,
        weights=4.5,
        squared_weights=16.25,
        entropy=4,
        behaviour_kl=(0.75 - math.log(0.75) - 1) + (4 - math.log(4) - 1),
        base_kl=2 - math.log(2) - 1,
        mismatch=3 * math.log(2),
        mismatch_max=math.log(4),
    )
    for name in Totals.__slots__:
        times = 1 if name == "mismatch_max" else 2
        assert getattr(found, name) == pytest.approx(times * getattr(expected, name)), name
    tally.clear()
    assert set(tally.values.tolist()) == {0.0}


def test_a_step_reports_its_samples_as_they_were_and_its_updates_as_means() -> None:
    """Over four tokens; the second update's weights and mismatch are not told, nor the smaller gradient."""
    first = Totals(0.5, 1, 6, 12, 8, 2, 1, 0.4, 0.3)
    second = Totals(-0.1, 3, 9, 99, 4, 6, 3, 0.9, 0.8)
    updates = [Update(first, 1.5), Update(second, 2.5)]
    result = step_result(updates, BATCH, replace(GRPO, kl_weight=0.1), duration_s=3.0)
    assert result.loss == pytest.approx(0.2)
    assert result.grad_norm == 2.5
    assert result.clip_fraction == pytest.approx((1 + 3) / 2 / 4)
    assert result.effective_sample_size == pytest.approx(6**2 / (4 * 12))
    assert result.mismatch_mean == pytest.approx(0.1)
    assert result.mismatch_max == 0.3
    assert result.entropy == pytest.approx((8 + 4) / 2 / 4)
    assert result.behaviour_kl == pytest.approx((2 + 6) / 2 / 4)
    assert result.base_kl == pytest.approx((1 + 3) / 2 / 4)
    assert result.duration_s == 3.0


def test_without_a_kl_term_none_is_reported() -> None:
    """Zero would say that the policy is the base model."""
    totals = Totals(0.5, 1, 6, 12, 8, 2, 0, 0.4, 0.3)
    assert step_result([Update(totals, 1.0)], BATCH, GRPO, duration_s=1.0).base_kl is None


def test_weights_of_sequences_are_counted_by_sequence() -> None:
    """Two weights of 1 and 3: 16 / (2 x 10)."""
    totals = Totals(0.5, 1, 4, 10, 8, 2, 0, 0.4, 0.3)
    settings = replace(GRPO, importance_correction="sequence_truncate")
    result = step_result([Update(totals, 1.0)], BATCH, settings, duration_s=1.0)
    assert result.effective_sample_size == pytest.approx(0.8)


@pytest.mark.parametrize("values", [(math.nan, 1.0, 0.0), (0.0, math.inf, 0.0), (0.0, 1.0, math.nan)])
def test_loss_gradient_and_mismatch_must_be_finite(values: tuple[float, float, float]) -> None:
    """The message has all three."""
    loss, norm, mismatch = values
    with pytest.raises(TrainerFailed, match=rf"must be finite, got {loss}, {norm} and {mismatch}"):
        Update(Totals(loss, 1, 6, 12, 8, 2, 0, mismatch, 0.3), norm).check_finite()
