"""All fault rules at once: they judge any text, within bounds and in time linear in its length."""

import time

import pytest
from hypothesis import given as for_any
from hypothesis import settings
from hypothesis import strategies as st

from agent.brief import Brief, Kind
from rewards.config import RewardsConfig
from rewards.faults import fault_rules
from rewards.part import RuleInput
from tests.rewards.briefs import given, rework

_LANGUAGES = "en de fr es it pt nl pl cs tr ru uk sv hi ja zh ko ar th".split()
_KINDS = [kind for kind in Kind if kind is not Kind.CREATE]
_MOST_S = 1.5
"""For 20,000 characters, of which an idle core takes a twentieth; a pattern that backtracks takes minutes."""


def _input(text: str, brief: Brief) -> RuleInput:
    return given(text, brief, brand_terms=("Klingelo",), banned_terms=("billig", "激安"), address="formal")


def _brief(kind: Kind, language: str) -> Brief:
    return rework(kind, "Klingelo 49,90 €, 24.12.2025", language, instructions="Liste mit Titel", keywords=("Brot",))


@settings(deadline=None, max_examples=60)  # cores are shared
@for_any(st.text(), st.sampled_from(_KINDS), st.sampled_from(_LANGUAGES))
def test_any_text_is_judged_within_bounds(text: str, kind: Kind, language: str) -> None:
    """No rule raises for a reply, and each value lies in [0, 1] or is absent."""
    seen = _input(text, _brief(kind, language))
    for rule in fault_rules():
        value = rule.judge(seen)
        assert value is None or (isinstance(value, float) and 0 <= value <= 1), rule.name


@pytest.mark.parametrize(
    "text",
    [
        "a" * 20_000,
        "1" * 20_000,
        "1,2" * 7_000,
        "<a " * 7_000,
        "[a " * 7_000,
        "a.b" * 7_000,
        "a1" * 10_000,
        "あ" * 20_000,
    ],
    ids=lambda text: str(text[:4]),
)
def test_rules_take_linear_time(text: str) -> None:
    """Texts made to send a pattern back and forth are judged about as fast as others."""
    seen = _input(text, _brief(Kind.TRANSLATE, "it"))
    started = time.process_time()
    for rule in fault_rules():
        rule.judge(seen)
    assert time.process_time() - started < _MOST_S


def test_each_fault_has_a_weight() -> None:
    """The default weights name every fault rule, so that all are asked."""
    assert {rule.name for rule in fault_rules()} < RewardsConfig().weights.keys()
