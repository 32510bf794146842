"""Language pass rates: counters, and gauges over a window."""

from prometheus_client import CollectorRegistry, generate_latest

from agent.episode import Reply
from agent.repair import Repair, RepairAttempt, RepairMethod, RepairOutcome
from agent.verdict import LanguageVerdict, Verdict
from service.language_metrics import WINDOW_REPLIES, WINDOW_S, LanguageMetrics


class _Rig:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.registry = CollectorRegistry()
        self.metrics = LanguageMetrics(self.registry, now_s=lambda: self.now_s)

    def serve(self, *verdicts: Verdict, words_pass: bool | None = None, repair: Repair | None = None) -> None:
        for verdict in verdicts:
            reply = Reply(
                "r",
                "x",
                "ja",
                LanguageVerdict("ja", verdict, None, (), words_pass),
                0,
                "stop",
                1,
                1,
                1.0,
                repair=repair,
            )
            self.metrics.observe("acme", reply)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"tenant": "acme", "language": "ja", **labels})


def test_the_line_level_pass_rate_leaves_out_what_was_not_told() -> None:
    """Of four replies whose language was told three passed, one of them after a repair: 3 / 4."""
    rig = _Rig()
    rig.serve(Verdict.PASS, Verdict.REPAIRED, Verdict.FAILED, Verdict.UNDETERMINED, Verdict.PASS)
    assert rig.value("coloq_language_lpr") == 0.75
    assert rig.value("coloq_language_line_checks_total", result="pass") == 3
    assert rig.value("coloq_language_line_checks_total", result="fail") == 1


def test_the_word_level_pass_rate_is_of_replies_whose_words_were_looked_at() -> None:
    """A reply that failed has no word check: of three that did, two had no English word."""
    rig = _Rig()
    rig.serve(Verdict.FAILED)
    rig.serve(Verdict.PASS, Verdict.REPAIRED, words_pass=True)
    rig.serve(Verdict.PASS, words_pass=False)
    assert rig.value("coloq_language_wpr") == 2 / 3
    assert rig.value("coloq_language_word_checks_total", result="fail") == 1


def test_the_gauges_forget_and_the_counters_do_not() -> None:
    """After an hour a failure is no part of the rate, and a rate of nothing is not shown."""
    rig = _Rig()
    rig.serve(Verdict.FAILED)
    rig.now_s = WINDOW_S + 1
    assert rig.value("coloq_language_lpr") is None
    rig.serve(Verdict.PASS)
    assert rig.value("coloq_language_lpr") == 1.0
    assert rig.value("coloq_language_line_checks_total", result="fail") == 1


def test_the_window_holds_the_last_replies() -> None:
    """A failure is gone once so many passed after it."""
    rig = _Rig()
    rig.serve(Verdict.FAILED, *[Verdict.PASS] * WINDOW_REPLIES)
    assert rig.value("coloq_language_lpr") == 1.0


def test_repairs_are_counted_by_method_and_outcome() -> None:
    """One reply may have had two attempts."""
    rig = _Rig()
    attempts = (
        RepairAttempt(RepairMethod.SENTENCE, RepairOutcome.NO_BETTER),
        RepairAttempt(RepairMethod.RETRY, RepairOutcome.REPAIRED),
    )
    rig.serve(Verdict.REPAIRED, repair=Repair(attempts))
    assert rig.value("coloq_language_repairs_total", method="sentence", outcome="no_better") == 1
    assert rig.value("coloq_language_repairs_total", method="retry", outcome="repaired") == 1
    assert b"coloq_language_wpr" in generate_latest(rig.registry)
