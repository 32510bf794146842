"""What feedback shows in /metrics."""

from collections import Counter as Tally

from prometheus_client import CollectorRegistry, Counter, Gauge

from agent.feedback import Feedback
from rewards.influence import LeftOut, PairSet
from rewards.preference import PairSource


class FeedbackMetrics:
    """Counts pieces of feedback and the pairs that they come to."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._shown: set[str] = set()
        self._kept = Counter(
            "coloq_feedback", "Pieces of feedback kept.", ("tenant", "language", "kind"), registry=registry
        )
        self._pairs = Gauge(
            "coloq_preference_pairs", "Pairs when they were last weighed.", ("language", "source"), registry=registry
        )
        self._left_out = Gauge(
            "coloq_preference_pairs_left_out",
            "Feedback that made no pair when it was last weighed.",
            ("language", "reason"),
            registry=registry,
        )

    def kept(self, feedback: Feedback) -> None:
        """Count a new piece."""
        self._kept.labels(feedback.tenant, feedback.language, feedback.opinion.kind.value).inc()

    def weighed(self, language: str, found: PairSet) -> None:
        """Show what the feedback of a language came to: pairs by source, and what was left out by reason.

        A language is shown from its first piece on: whoever asks for another one's pairs adds no row.
        """
        if language not in self._shown and not found.pairs and not any(found.left_out.values()):
            return
        self._shown.add(language)
        sources = Tally(pair.source for pair in found.pairs)
        for source in PairSource:
            self._pairs.labels(language, source.value).set(sources[source])
        for reason in LeftOut:
            self._left_out.labels(language, reason.value).set(found.left_out.get(reason, 0))
