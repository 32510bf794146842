"""What training costs the engine's steps: each is compared with what one of its size takes while the learner rests.

    gap = a + b × requests + c × prompt tokens        fitted to calm gaps, the newest first to count
    cost = sum of gaps ÷ sum of what the fit expects  over all gaps since the last look

A gap is the time from a step's begin to the next one's. Latencies of live requests vary with load, and on a shared host
with its other tenants, by more than training may cost; steps a second before and after vary by less, and there are
hundreds of them where a dozen requests end.
"""

import math
from dataclasses import dataclass

import numpy as np
from msgspec import Struct

FEWEST_CALM = 24.0
"""Weight of calm gaps below which nothing is expected of others."""
_MEMORY = 0.99
"""What a calm gap's weight is multiplied with for each newer one: a hundred of them count."""
_RIDGE = 1e-4
"""Relative to the sums of squares; holds a coefficient near 0 whose size has not varied."""
_LEAST_S = 1e-5
"""What a step is expected to take at least, however far beyond the calm ones its size is."""
_TOKENS = 100.0
"""Prompt tokens are counted in hundreds, so that all sizes are of like magnitude."""


class Matched(Struct, frozen=True):
    """Gaps since the last look, and what the fit to calm ones expects of them. All in seconds."""

    steps_s: float = 0.0
    expected_s: float = 0.0
    """0 while too few calm gaps are known."""
    prompt_steps_s: float = 0.0
    """Of those with prompt tokens, which a first token waits for."""
    prompt_expected_s: float = 0.0
    error: float = 0.0
    """Standard error of what is expected of all of them, as a share of it."""
    prompt_error: float = 0.0
    num_steps: int = 0
    request_s: float = 0.0
    """What one more request adds to a step, by the fit."""


@dataclass(slots=True)
class _Sums:
    """Of gaps and their sizes."""

    seconds: float = 0.0
    count: int = 0
    requests: int = 0
    tokens: int = 0

    def add(self, gap_s: float, num_requests: int, num_prompt_tokens: int) -> None:
        self.seconds += gap_s
        self.count += 1
        self.requests += num_requests
        self.tokens += num_prompt_tokens

    @property
    def size(self) -> np.ndarray:
        return np.array([self.count, self.requests, self.tokens / _TOKENS])


class MatchedSteps:
    """Of one engine. Not safe for threads."""

    def __init__(self) -> None:
        self._products = [0.0] * 6
        self._moments = [0.0] * 3
        self._squares = 0.0
        self._all, self._prompts = _Sums(), _Sums()

    def add(self, gap_s: float, *, num_requests: int, num_prompt_tokens: int, calm: bool) -> None:
        """Take in one gap. ``calm`` says that nothing of the learner ran beside it."""
        self._all.add(gap_s, num_requests, num_prompt_tokens)
        if num_prompt_tokens:
            self._prompts.add(gap_s, num_requests, num_prompt_tokens)
        if calm:
            self._fit(gap_s, float(num_requests), num_prompt_tokens / _TOKENS)

    def _fit(self, gap_s: float, requests: float, tokens: float) -> None:
        new = (1.0, requests, tokens, requests * requests, requests * tokens, tokens * tokens)
        self._products = [_MEMORY * old + value for old, value in zip(self._products, new, strict=True)]
        moments = (gap_s, gap_s * requests, gap_s * tokens)
        self._moments = [_MEMORY * old + value for old, value in zip(self._moments, moments, strict=True)]
        self._squares = _MEMORY * self._squares + gap_s * gap_s

    def take(self) -> Matched:
        """The gaps since the last call, compared; they are forgotten then, what was fitted is not."""
        everything, prompts = self._all, self._prompts
        self._all, self._prompts = _Sums(), _Sums()
        fit = self._fitted()
        if fit is None:
            return Matched(steps_s=everything.seconds, prompt_steps_s=prompts.seconds)
        expected_s, error = fit.expects(everything)
        prompt_expected_s, prompt_error = fit.expects(prompts)
        return Matched(
            steps_s=everything.seconds,
            expected_s=expected_s,
            prompt_steps_s=prompts.seconds,
            prompt_expected_s=prompt_expected_s,
            error=error,
            prompt_error=prompt_error,
            num_steps=everything.count,
            request_s=max(float(fit.coefficients[1]), 0.0),
        )

    def _fitted(self) -> "_Fit | None":
        """None while there are too few calm gaps."""
        weight = self._products[0]
        if weight < FEWEST_CALM:
            return None
        one, r, t, rr, rt, tt = self._products
        products = np.array([[one, r, t], [r, rr, rt], [t, rt, tt]])
        moments = np.array(self._moments)
        inverse = np.linalg.inv(products + np.diag(_RIDGE * np.maximum(np.diag(products), 1.0)))
        coefficients = inverse @ moments
        return _Fit(coefficients, inverse, max(self._squares - float(coefficients @ moments), 0.0) / weight)


@dataclass(frozen=True, slots=True)
class _Fit:
    """Least squares; a gap's variance is what is left of the squares."""

    coefficients: np.ndarray
    inverse: np.ndarray
    """Of the sums of products of sizes."""
    variance: float

    def expects(self, gaps: _Sums) -> tuple[float, float]:
        """Seconds, and their standard error as a share: large where calm gaps of such a size were not seen. 0 without
        gaps."""
        if not gaps.count:
            return 0.0, 0.0
        size = gaps.size / gaps.count
        mean_s = max(float(size @ self.coefficients), _LEAST_S)
        return mean_s * gaps.count, math.sqrt(self.variance * float(size @ self.inverse @ size)) / mean_s
