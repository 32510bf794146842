"""Percentiles, rates and ratios with values computed by hand."""

import random

import pytest

from service.bench.load import Exchange, LoadResult
from service.bench.statistics import merged, quantile_ratio, spread, summarise


def exchange(sent_s: float, latency_s: float, **facts: object) -> Exchange:
    return Exchange(sent_s - 0.001, sent_s, latency_s, **facts)  # type: ignore[arg-type]  # values of several types


ANSWERED = {"status": 200, "completion_tokens": 8, "prompt_tokens": 100, "inter_token_ms": 4.0}
RESULT = LoadResult(
    began_s=10.0,
    duration_s=2.0,
    exchanges=[
        exchange(10.1, 0.1, **ANSWERED, first_token_ms=10.0),
        exchange(10.5, 0.3, **{**ANSWERED, "prompt_tokens": 104}, first_token_ms=30.0),
        exchange(11.0, 0.2, **{**ANSWERED, "completion_tokens": 5}),
        exchange(11.9, 0.1, status=503, error="status 503"),
    ],
    done_in_window=3,
    tokens_in_window=21,
)


def test_percentiles_are_interpolated() -> None:
    """Of 0, 1, …, 100 the p50 is 50, p90 is 90, p99 is 99; of 1 and 2 the p99 is 1 + 0.99."""
    whole = spread(float(number) for number in range(101))
    assert whole is not None
    assert (whole.count, whole.mean, whole.p50, whole.p90, whole.p99, whole.max) == (101, 50, 50, 90, 99, 100)
    two = spread([2.0, 1.0])
    assert two is not None
    assert two.p99 == pytest.approx(1.99)


def test_no_values_have_no_distribution() -> None:
    """What was not measured is None, not zero."""
    assert spread([]) is None
    assert quantile_ratio([], [1.0], 0.5) is None


def test_a_load_is_summed_up() -> None:
    """3 replies in 2 s are 1.5 a second, 21 tokens 10.5; one of three has 5 of 8 tokens; one of four failed."""
    summary = summarise(RESULT, max_tokens=8)
    assert (summary.num_requests, summary.num_failed, summary.failures) == (4, 1, {"status 503": 1})
    assert (summary.num_short, summary.requests_per_s, summary.tokens_per_s) == (1, 1.5, 10.5)
    assert summary.prompt_tokens == pytest.approx((100 + 104 + 100) / 3)
    assert summary.latency_ms is not None
    assert summary.latency_ms.p50 == pytest.approx(200)
    assert summary.first_token_ms is not None
    assert (summary.first_token_ms.count, summary.first_token_ms.p50) == (2, 20)
    assert summary.send_delay_ms is not None
    assert summary.send_delay_ms.max == pytest.approx(1.0)


def test_repetitions_are_one_load_over_all_windows() -> None:
    """Twice the same window: 6 replies in 4 s are 1.5 a second again."""
    both = merged([RESULT, RESULT])
    assert (both.duration_s, both.done_in_window, len(both.exchanges)) == (4.0, 6, 8)
    assert summarise(both, max_tokens=8).requests_per_s == 1.5


def test_a_ratio_of_constants_is_certain() -> None:
    """All 3 over all 2 is 1.5, whatever is drawn."""
    ratio = quantile_ratio([3.0] * 50, [2.0] * 50, 0.99)
    assert ratio is not None
    assert (ratio.value, ratio.low, ratio.high) == (1.5, 1.5, 1.5)


def test_an_interval_holds_the_ratio_and_narrows_with_the_sample() -> None:
    """Values over their halves have a ratio of 2; of 16 times the values the interval is a quarter as wide, about."""
    draw = random.Random(0)
    widths = []
    for count in (40, 640):
        values = [1.0 + draw.random() for _ in range(count)]
        ratio = quantile_ratio([2 * value for value in values], values, 0.5)
        assert ratio is not None
        assert ratio.value == pytest.approx(2.0)
        assert ratio.low < 2.0 < ratio.high
        widths.append(ratio.high - ratio.low)
    assert widths[1] < widths[0] / 2


def test_intervals_repeat() -> None:
    """The same values and seed give the same interval."""
    values = [float(number % 17 + 1) for number in range(100)]
    assert quantile_ratio(values, values, 0.99, seed=3) == quantile_ratio(values, values, 0.99, seed=3)
