"""Whether replies keep to their language, as Prometheus shows it, by tenant and language.

    LPR = line passes / line checks       replies all of whose sentences are in the wanted language
    WPR = word passes / word checks       of those, replies without an English word; for languages in other scripts

Source: line- and word-level pass rate of the Language Confusion Benchmark, Marchisio et al. 2024, arXiv 2406.20052.
There a line is one of at least five tokens; here it is a sentence as the language contract judges it, short ones
pooled, and what it cannot tell is no check. Counted is what was served: what repairs made of it is counted apart.

The counters give the rates over any time; two gauges give them over the last replies of each tenant and language.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from agent.episode import Reply
from agent.verdict import LanguageVerdict, Verdict

WINDOW_REPLIES = 500
WINDOW_S = 3600.0
_LABELS = ("tenant", "language")


@dataclass(frozen=True, slots=True)
class _Check:
    at_s: float
    line_passes: bool
    words_pass: bool | None


class LanguageMetrics(Collector):
    """Counts replies, and is itself the collector of the gauges. For the event loop's thread alone."""

    def __init__(self, registry: CollectorRegistry, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._windows: dict[tuple[str, str], deque[_Check]] = {}
        self._lines = Counter(
            "coloq_language_line_checks", "Replies whose sentences were told.", (*_LABELS, "result"), registry=registry
        )
        self._words = Counter(
            "coloq_language_word_checks",
            "Replies without a wrong sentence, by their words.",
            (*_LABELS, "result"),
            registry=registry,
        )
        self._repairs = Counter(
            "coloq_language_repairs",
            "Attempts to repair a reply.",
            (*_LABELS, "method", "outcome"),
            registry=registry,
        )
        registry.register(self)

    def observe(self, tenant: str, reply: Reply) -> None:
        """Count one served reply."""
        for attempt in reply.repair.attempts if reply.repair is not None else ():
            self._repairs.labels(tenant, reply.language, attempt.method.value, attempt.outcome.value).inc()
        check = _check(reply.verdict, self._now_s())
        if check is None:
            return
        self._lines.labels(tenant, reply.language, _result(check.line_passes)).inc()
        if check.words_pass is not None:
            self._words.labels(tenant, reply.language, _result(check.words_pass)).inc()
        self._windows.setdefault((tenant, reply.language), deque(maxlen=WINDOW_REPLIES)).append(check)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The two rates; a tenant's language without a check in the window is not shown."""
        lines = GaugeMetricFamily(
            "coloq_language_lpr", f"Line-level pass rate, last {WINDOW_REPLIES} replies of an hour.", labels=_LABELS
        )
        words = GaugeMetricFamily(
            "coloq_language_wpr", f"Word-level pass rate, last {WINDOW_REPLIES} replies of an hour.", labels=_LABELS
        )
        oldest_s = self._now_s() - WINDOW_S
        for labels, window in self._windows.items():
            recent = [check for check in window if check.at_s >= oldest_s]
            _add_rate(lines, labels, [check.line_passes for check in recent])
            _add_rate(words, labels, [check.words_pass for check in recent if check.words_pass is not None])
        yield lines
        yield words


def _check(verdict: LanguageVerdict, at_s: float) -> _Check | None:
    if verdict.verdict is Verdict.UNDETERMINED:
        return None
    return _Check(at_s, verdict.verdict is not Verdict.FAILED, verdict.words_pass)


def _result(passes: bool) -> str:
    return "pass" if passes else "fail"


def _add_rate(family: GaugeMetricFamily, labels: tuple[str, str], passes: list[bool]) -> None:
    if passes:
        family.add_metric(labels, sum(passes) / len(passes))
