"""Steps compared with calm ones of their size."""

import random

import pytest

from trainer.matched_steps import FEWEST_CALM, MatchedSteps


def calm_s(num_requests: int, num_prompt_tokens: int) -> float:
    """3 ms, 60 us for each request and 2 us for each token of a prompt."""
    return 0.003 + 0.00006 * num_requests + 2e-6 * num_prompt_tokens


def feed(matched: MatchedSteps, num: int, *, slowed: float, calm: bool, noise: float = 0.0, seed: int = 3) -> None:
    """Gaps of steps with 20 to 50 requests, every third with one to three prompts of 128 tokens."""
    draw = random.Random(seed)
    for number in range(num):
        size = draw.randint(20, 50), 0 if number % 3 else 128 * draw.randint(1, 3)
        gap_s = calm_s(*size) * slowed * draw.lognormvariate(0.0, noise)
        matched.add(gap_s, num_requests=size[0], num_prompt_tokens=size[1], calm=calm)


def test_what_training_costs_is_what_steps_take_beyond_their_size() -> None:
    """Calm gaps are exactly linear here; beside training each takes 1.08 of that."""
    matched = MatchedSteps()
    feed(matched, 60, slowed=1.0, calm=True)
    matched.take()
    feed(matched, 50, slowed=1.08, calm=False, seed=4)
    seen = matched.take()
    assert seen.steps_s / seen.expected_s == pytest.approx(1.08, abs=0.001)
    assert seen.prompt_steps_s / seen.prompt_expected_s == pytest.approx(1.08, abs=0.001)
    assert seen.error < 0.002


def test_another_load_is_not_taken_for_a_slowdown() -> None:
    """Calm steps of 20 to 50 requests, then 60 in all: longer steps, which cost nothing more than their size."""
    matched = MatchedSteps()
    feed(matched, 60, slowed=1.0, calm=True)
    matched.take()
    for _ in range(20):
        matched.add(calm_s(60, 0), num_requests=60, num_prompt_tokens=0, calm=False)
    seen = matched.take()
    assert seen.steps_s / seen.expected_s == pytest.approx(1.0, abs=0.005)


def test_a_host_that_gets_slower_is_followed() -> None:
    """Everything takes 1.2 times as long from some moment on: after 300 calm gaps, that is what is expected."""
    matched = MatchedSteps()
    feed(matched, 200, slowed=1.0, calm=True)
    feed(matched, 300, slowed=1.2, calm=True, seed=5)
    matched.take()
    feed(matched, 50, slowed=1.2 * 1.05, calm=False, seed=6)
    seen = matched.take()
    assert seen.steps_s / seen.expected_s == pytest.approx(1.05, abs=0.02)


def test_the_error_covers_what_chance_does() -> None:
    """Gaps differ by 15 %. In 95 of 100 trials at least the mean lies within three stated errors, plus its own."""
    within = 0
    for trial in range(100):
        matched = MatchedSteps()
        feed(matched, 100, slowed=1.0, calm=True, noise=0.15, seed=1000 + trial)
        matched.take()
        feed(matched, 1000, slowed=1.0, calm=False, noise=0.15, seed=2000 + trial)
        seen = matched.take()
        within += abs(seen.steps_s / seen.expected_s - 1) <= 3 * (seen.error + 0.15 / 1000**0.5)
    assert within >= 95


def test_a_size_that_was_not_seen_calm_is_expected_with_a_large_error() -> None:
    """Calm steps of 1 to 3 requests as a load drains, then 40 with prompts: the error says that this is a guess."""
    matched, draw = MatchedSteps(), random.Random(5)
    for number in range(100):
        size = 3 - number % 3
        gap_s = calm_s(size, 0) * draw.lognormvariate(0.0, 0.15)
        matched.add(gap_s, num_requests=size, num_prompt_tokens=0, calm=True)
    matched.take()
    for _ in range(20):
        matched.add(calm_s(40, 256), num_requests=40, num_prompt_tokens=256, calm=False)
    assert matched.take().error > 0.1
    feed(matched, 100, slowed=1.0, calm=True, noise=0.15)
    assert matched.take().error < 0.03


def test_few_calm_steps_expect_nothing() -> None:
    """A line through three points is no baseline."""
    matched = MatchedSteps()
    feed(matched, int(FEWEST_CALM) - 1, slowed=1.0, calm=True)
    seen = matched.take()
    assert seen.expected_s == seen.prompt_expected_s == 0.0
    assert seen.steps_s > 0


def test_steps_of_one_size_are_enough() -> None:
    """Requests and prompt tokens never vary: nothing can be said of what one more would take, and need not be."""
    matched = MatchedSteps()
    for _ in range(50):
        matched.add(0.006, num_requests=8, num_prompt_tokens=0, calm=True)
    matched.take()
    matched.add(0.0066, num_requests=8, num_prompt_tokens=0, calm=False)
    seen = matched.take()
    assert seen.steps_s / seen.expected_s == pytest.approx(1.1, abs=0.001)
    assert matched.take().steps_s == 0.0
