"""Figures of loads: percentiles, throughput, failures, and ratios of percentiles with their confidence intervals."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.bench.load import Exchange, LoadResult

_NUM_RESAMPLES = 1000
_CONFIDENCE = 0.95

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Spread:
    """A distribution. Percentiles are interpolated linearly between the two nearest values."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio with its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class LoadSummary:
    """One load's figures."""

    num_requests: int
    num_failed: int
    failures: dict[str, int]
    """Reason to count."""
    num_short: int
    """Replies of fewer tokens than were asked for."""
    requests_per_s: float
    """Replies that came in the window."""
    tokens_per_s: float
    """Tokens of those replies."""
    prompt_tokens: float | None
    """Mean of the prompts."""
    latency_ms: Spread | None
    """From the send to the whole reply. None when nothing was answered."""
    first_token_ms: Spread | None
    inter_token_ms: Spread | None
    """Spread of the replies' mean times between tokens."""
    send_delay_ms: Spread | None
    """How late requests were sent: the generator's own limit, where it is more than a few milliseconds."""


def spread(values: Iterable[float]) -> Spread | None:
    """The distribution of some values; None for none."""
    array = np.fromiter(values, np.float64)
    if not array.size:
        return None
    p50, p90, p99 = (float(value) for value in np.quantile(array, (0.5, 0.9, 0.99)))
    return Spread(array.size, float(array.mean()), p50, p90, p99, float(array.max()))


def summarise(result: LoadResult, max_tokens: int) -> LoadSummary:
    """A load's figures; ``max_tokens`` is what every request asked for."""
    answered = [item for item in result.exchanges if item.error is None]
    failures = Counter(item.error for item in result.exchanges if item.error is not None)
    prompts = [item.prompt_tokens for item in answered if item.prompt_tokens is not None]
    return LoadSummary(
        num_requests=len(result.exchanges),
        num_failed=failures.total(),
        failures=dict(failures),
        num_short=sum((item.completion_tokens or 0) < max_tokens for item in answered),
        requests_per_s=result.done_in_window / result.duration_s,
        tokens_per_s=result.tokens_in_window / result.duration_s,
        prompt_tokens=sum(prompts) / len(prompts) if prompts else None,
        latency_ms=spread(latencies_ms(answered)),
        first_token_ms=spread(first_tokens_ms(answered)),
        inter_token_ms=spread(inter_tokens_ms(answered)),
        send_delay_ms=spread((item.sent_s - item.scheduled_s) * 1000 for item in result.exchanges),
    )


def merged(results: Sequence[LoadResult]) -> LoadResult:
    """Repetitions of one load as one: rates become means over all windows."""
    return LoadResult(
        began_s=results[0].began_s,
        duration_s=sum(result.duration_s for result in results),
        exchanges=[item for result in results for item in result.exchanges],
        done_in_window=sum(result.done_in_window for result in results),
        tokens_in_window=sum(result.tokens_in_window for result in results),
    )


def latencies_ms(exchanges: Iterable[Exchange]) -> list[float]:
    """Latencies of the answered requests."""
    return [item.latency_s * 1000 for item in exchanges if item.error is None]


def first_tokens_ms(exchanges: Iterable[Exchange]) -> list[float]:
    """Times to the first token, where they are known."""
    return [item.first_token_ms for item in exchanges if item.first_token_ms is not None]


def inter_tokens_ms(exchanges: Iterable[Exchange]) -> list[float]:
    """Mean times between tokens, where they are known."""
    return [item.inter_token_ms for item in exchanges if item.inter_token_ms is not None]


def quantile_ratio(
    numerator: Sequence[float], denominator: Sequence[float], q: float, *, seed: int = 0
) -> Ratio | None:
    """The ratio of two samples' ``q``-quantiles; None when a sample is empty.

    The interval is a percentile bootstrap over circular blocks of n^(1/3) consecutive values (Politis and Romano 1992,
    "A circular block-resampling procedure for stationary data"): neighbours in time share the same queue.
    """
    if not numerator or not denominator:
        return None
    generator = np.random.default_rng(seed)
    above, below = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    ratios = _resampled_quantiles(above, q, generator) / _resampled_quantiles(below, q, generator)
    low, high = np.quantile(ratios, ((1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2))
    return Ratio(float(np.quantile(above, q) / np.quantile(below, q)), float(low), float(high))


def _resampled_quantiles(values: Values, q: float, generator: np.random.Generator) -> Values:
    """[_NUM_RESAMPLES]: the quantile of each resample."""
    block = math.ceil(values.size ** (1 / 3))
    starts = generator.integers(values.size, size=(_NUM_RESAMPLES, -(-values.size // block), 1))
    indices = ((starts + np.arange(block)) % values.size).reshape(_NUM_RESAMPLES, -1)[:, : values.size]
    quantiles: Values = np.quantile(values[indices], q, axis=1)
    return quantiles
