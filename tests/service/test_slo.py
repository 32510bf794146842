"""How what live requests got stands to its bound."""

import math

import pytest

from service.config import SloConfig
from service.slo import Baseline, Bounds, Quantity, Standing, percentile, poisson_tail

FIXED = Bounds(SloConfig(ttft_p99_ms=100.0, inter_token_p99_ms=10.0))
RELATIVE = Bounds(SloConfig(ratio=1.1))


def standing_of(bounds: Bounds, quantity: Quantity, values: list[float], baseline: Baseline | None) -> Standing | None:
    reading = bounds.read(quantity, values, baseline)
    assert reading is not None
    return reading.standing


def test_a_percentile_is_one_of_the_values() -> None:
    """Nearest rank: of 1 to 100 the 99th, of 1 to 101 the 100th (99.99 rounds up), of one value that one."""
    assert percentile([float(value) for value in range(100, 0, -1)], 0.99) == 99.0
    assert percentile([float(value) for value in range(1, 102)], 0.99) == 100.0
    assert percentile([7.0], 0.99) == 7.0


def test_the_tail_of_the_poisson_distribution() -> None:
    """With mean 0.4: P(0 or more) is 1, P(1 or more) is 1 - exp(-0.4), P(2 or more) takes 0.4 exp(-0.4) off that."""
    assert poisson_tail(0, 0.4) == 1.0
    assert poisson_tail(1, 0.4) == pytest.approx(1 - math.exp(-0.4))
    assert poisson_tail(2, 0.4) == pytest.approx(1 - 1.4 * math.exp(-0.4))


def test_a_relative_bound_is_shown_and_not_judged() -> None:
    """1.1 times 20 ms are 22 ms; whether training keeps to it the engine's steps say, not what chance does to these."""
    reading = RELATIVE.read(Quantity.INTER_TOKEN, [0.05] * 100, Baseline(0.02, 0.0))
    assert reading is not None
    assert reading.bound_s == pytest.approx(0.022)
    assert (reading.value_s, reading.standing) == (0.05, None)


def test_a_fixed_bound_needs_no_baseline_and_a_relative_one_does() -> None:
    """100 ms are 0.1 s; 1.1 times 20 ms are 22 ms; engine steps have the bound of the time between tokens."""
    baseline = Baseline(0.02, 0.0)
    assert FIXED.bound(Quantity.TTFT, None) == 0.1
    assert FIXED.bound(Quantity.ENGINE_STEP, baseline) == 0.01
    assert RELATIVE.bound(Quantity.TTFT, None) is None
    assert RELATIVE.bound(Quantity.TTFT, baseline) == pytest.approx(0.022)
    assert (FIXED.has_relative, RELATIVE.has_relative) == (False, True)
    assert Bounds(SloConfig(ttft_p99_ms=100.0)).has_relative


@pytest.mark.parametrize(("quantity", "count"), [(Quantity.TTFT, 39), (Quantity.ENGINE_STEP, 1)])
def test_too_few_are_no_reading(quantity: Quantity, count: int) -> None:
    """A percentile takes forty requests, or two pulses; fewer are unknown, which is not zero."""
    assert FIXED.read(quantity, [0.001] * count, None) is None
    assert FIXED.read(quantity, [0.001] * (count + 1), None) is not None
    assert FIXED.read(quantity, [], None) is None


def test_without_a_bound_there_is_no_verdict() -> None:
    """The value is known, how it should be is not."""
    reading = RELATIVE.read(Quantity.INTER_TOKEN, [0.01] * 40, None)
    assert reading is not None
    assert (reading.value_s, reading.bound_s, reading.standing) == (0.01, None, None)


@pytest.mark.parametrize(
    ("num_above", "expected"), [(0, Standing.CLEAR), (2, Standing.WITHIN), (4, Standing.WITHIN), (5, Standing.OVER)]
)
def test_more_requests_beyond_the_bound_than_chance_explains(num_above: int, expected: Standing) -> None:
    """Of 100 requests one may be above. By chance 4 or more are with 1.9 %, 5 or more with 0.4 %, below 1 %. With two
    above, the 99th of them is above the line of head-room."""
    values = [0.005] * (100 - num_above) + [0.011] * num_above
    assert standing_of(FIXED, Quantity.INTER_TOKEN, values, None) is expected


def test_half_again_over_the_bound_is_far() -> None:
    """15 ms against 10 ms."""
    assert standing_of(FIXED, Quantity.INTER_TOKEN, [0.0149] * 40, None) is Standing.OVER
    assert standing_of(FIXED, Quantity.INTER_TOKEN, [0.015] * 40, None) is Standing.FAR_OVER
    assert standing_of(FIXED, Quantity.ENGINE_STEP, [0.015] * 2, None) is Standing.FAR_OVER


def test_head_room_is_half_way_to_the_baseline() -> None:
    """Baseline 8 ms, bound 10 ms: clear to 9 ms. Unknown, or beyond the bound itself: to 85 % of it, 8.5 ms."""
    for baseline, clear_s in ((Baseline(0.008, 0.0), 0.009), (None, 0.0085), (Baseline(0.02, 0.0), 0.0085)):
        assert standing_of(FIXED, Quantity.INTER_TOKEN, [clear_s - 1e-5] * 40, baseline) is Standing.CLEAR
        assert standing_of(FIXED, Quantity.INTER_TOKEN, [clear_s + 1e-5] * 40, baseline) is Standing.WITHIN


def test_noisy_engine_steps_need_more_to_be_over() -> None:
    """Bound 10 ms, two pulses, deviation 2 ms: 2.58 * 1.2533 * 2 / sqrt(2) = 4.57 ms more, so 14.57 ms."""
    baseline = Baseline(0.008, 0.002)
    assert standing_of(FIXED, Quantity.ENGINE_STEP, [0.0145] * 2, baseline) is Standing.WITHIN
    assert standing_of(FIXED, Quantity.ENGINE_STEP, [0.0146] * 2, baseline) is Standing.OVER
    assert standing_of(FIXED, Quantity.ENGINE_STEP, [0.0101] * 2, Baseline(0.008, 0.0)) is Standing.OVER


def test_engine_steps_are_over_by_the_newest_and_clear_by_many() -> None:
    """Three bad pulses of the newest six are not most of them, four are. Head-room takes ten pulses."""
    good, bad = [0.005] * 30, 0.012
    assert standing_of(FIXED, Quantity.ENGINE_STEP, [*good, *[bad] * 3], None) is Standing.CLEAR
    assert standing_of(FIXED, Quantity.ENGINE_STEP, [*good, *[bad] * 4], None) is Standing.OVER
    assert standing_of(FIXED, Quantity.ENGINE_STEP, good[:9], None) is Standing.WITHIN
    assert standing_of(FIXED, Quantity.ENGINE_STEP, good[:10], None) is Standing.CLEAR
