"""When a run ends for its steps' sake."""

from dataclasses import replace

import pytest

from trainer.config import HealthConfig
from trainer.health import unhealthy
from trainer.records import StepReport

CONFIG = HealthConfig(patience=2, min_effective_sample_size=0.2, max_grad_norm_ratio=10, min_entropy=0.5)
STEP = StepReport(
    step=1,
    version=1,
    num_sequences=8,
    num_tokens=100,
    reward_mean=0.5,
    reward_std=0.1,
    reward_by_language={},
    parts={},
    dropped={},
    loss=0.1,
    grad_norm=2.0,
    clip_fraction=0.0,
    effective_sample_size=0.9,
    mismatch_mean=0.01,
    rollout_s=1,
    score_s=1,
    train_s=1,
    install_s=1,
    entropy=1.5,
)
FLAT, SKEWED, EXPLODED = (
    replace(STEP, entropy=0.25),
    replace(STEP, effective_sample_size=0.125),
    replace(STEP, grad_norm=50.0),
)


def test_a_healthy_run_goes_on() -> None:
    """However long it is; before its first step there is nothing to say."""
    assert unhealthy([], CONFIG) is None
    assert unhealthy([STEP] * 50, CONFIG) is None


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (SKEWED, "tuning.health.min_effective_sample_size is 0.2, got 0.125 after 2 steps in a row beyond it"),
        (FLAT, "tuning.health.min_entropy is 0.5 nats, got 0.25 after 2 steps in a row beyond it"),
        (
            EXPLODED,
            "tuning.health.max_grad_norm_ratio is 10 times the median of 2, got 50 after 2 steps in a row beyond it",
        ),
    ],
    ids=["sample_size", "entropy", "gradient"],
)
def test_a_threshold_crossed_for_long_enough_is_a_reason(bad: StepReport, reason: str) -> None:
    """It names threshold and value. One step is an accident, and so are two with a good one between them."""
    assert unhealthy([STEP] * 5 + [bad], CONFIG) is None
    assert unhealthy([STEP] * 5 + [bad, STEP, bad], CONFIG) is None
    assert unhealthy([STEP] * 5 + [bad, bad], CONFIG) == reason


def test_values_at_a_threshold_do_not_cross_it() -> None:
    """Effective sample size 0.2, entropy 0.5, a gradient ten times the median."""
    edge = replace(STEP, effective_sample_size=0.2, entropy=0.5, grad_norm=20.0)
    assert unhealthy([STEP] * 5 + [edge] * 2, CONFIG) is None


def test_two_thresholds_crossed_in_turn_are_no_reason() -> None:
    """Patience is by threshold."""
    assert unhealthy([STEP] * 5 + [FLAT, SKEWED], CONFIG) is None


def test_gradients_are_measured_by_those_before_the_newest() -> None:
    """Four earlier steps are needed, and a median of 2 of them is not moved by one outlier."""
    assert unhealthy([STEP] * 3 + [EXPLODED] * 2, CONFIG) is None
    assert unhealthy([STEP] * 4 + [EXPLODED] * 2, CONFIG) is not None
    assert unhealthy([EXPLODED] + [STEP] * 4 + [EXPLODED] * 2, CONFIG) is not None


def test_what_is_not_measured_or_unlimited_is_no_reason() -> None:
    """A learner without an entropy; thresholds that are unset; an effective sample size of 0 as the limit."""
    assert unhealthy([replace(STEP, entropy=None)] * 9, CONFIG) is None
    limitless = HealthConfig(patience=1, min_effective_sample_size=0, max_grad_norm_ratio=None)
    worst = replace(STEP, effective_sample_size=0.001, entropy=0.0, grad_norm=1e9)
    assert unhealthy([STEP] * 5 + [worst] * 5, limitless) is None
