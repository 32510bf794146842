"""What feedback shows in /metrics."""

from prometheus_client import CollectorRegistry, generate_latest

from rewards.influence import LeftOut, PairSet
from service.feedback.metrics import FeedbackMetrics


def shown(registry: CollectorRegistry) -> set[str]:
    lines = generate_latest(registry).decode().splitlines()
    return {line.split('language="')[1].split('"')[0] for line in lines if 'language="' in line}


def test_a_language_is_shown_from_its_first_piece_on() -> None:
    """Whoever asks for ever new languages adds nothing; one that had feedback stays, at 0 when that is gone."""
    registry = CollectorRegistry()
    metrics = FeedbackMetrics(registry)
    for code in ("xa", "xb", "xc"):
        metrics.weighed(code, PairSet((), 0, {}))
    assert shown(registry) == set()
    metrics.weighed("de", PairSet((), 0, {LeftOut.FLOOD: 2}))
    metrics.weighed("de", PairSet((), 0, {}))
    assert shown(registry) == {"de"}
    sample = registry.get_sample_value("coloq_preference_pairs_left_out", {"language": "de", "reason": "flood"})
    assert sample == 0.0
