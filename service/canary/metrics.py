"""What Prometheus sees of canaries."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge

from service.canary.comparison import Difference
from service.canary.records import Kind, TrialRecord


class CanaryMetrics:
    """The canary's metrics, in the node's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._share = Gauge(
            "coloq_canary_share", "Share of the end users that a canary answers; 0 without one.", registry=registry
        )
        self._requests = Counter(
            "coloq_canary_requests", "Replies that were compared.", ("arm", "language"), registry=registry
        )
        self._difference = Gauge(
            "coloq_canary_difference",
            "How much worse the candidate is, by the comparison so far.",
            ("language", "metric"),
            registry=registry,
        )
        self._outcomes = Counter(
            "coloq_canary_outcomes", "Canaries and watches that ended.", ("outcome",), registry=registry
        )

    def started(self, record: TrialRecord) -> None:
        """Show the share of a canary that begins or goes on."""
        self._share.set(record.share if record.kind is Kind.CANARY else 0.0)
        self._difference.clear()

    def replied(self, arm: str, language: str) -> None:
        """Count a reply of ``candidate`` or ``stable``."""
        self._requests.labels(arm, language).inc()

    def compared(self, differences: Sequence[Difference]) -> None:
        """Show how much worse the candidate is."""
        for found in differences:
            self._difference.labels(found.language, found.measure.value).set(found.harm)

    def ended(self, record: TrialRecord) -> None:
        """Count the outcome."""
        self._share.set(0.0)
        self._difference.clear()
        if record.outcome is not None:
            self._outcomes.labels(record.outcome.value).inc()
