"""Two detectors heard together."""

import pytest

from agent.contract import LanguageContract
from agent.fakes import FixedDetector
from agent.verdict import Verdict
from rewards.agreement import Agreement
from rewards.second_opinion import second_opinion

LINE = "Alpha beta gamma delta epsilon."


def _agreement(first: dict[str, str], second: dict[str, str]) -> Agreement:
    """Both know German, Polish and English; what they find in LINE is given by its words."""
    others = {"deutsch": "de", "polski": "pl", "english": "en"}
    return Agreement(
        LanguageContract(FixedDetector({**first, **others})), LanguageContract(FixedDetector({**second, **others}))
    )


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ({"alpha": "pl"}, {"alpha": "pl"}, Verdict.PASS),
        ({"alpha": "en"}, {"alpha": "en"}, Verdict.FAILED),
        ({"alpha": "en"}, {"alpha": "de"}, Verdict.FAILED),
        ({"alpha": "pl"}, {}, Verdict.PASS),
        ({}, {"alpha": "pl"}, Verdict.PASS),
        ({"alpha": "en"}, {}, Verdict.UNDETERMINED),
        ({"alpha": "en"}, {"alpha": "pl"}, Verdict.UNDETERMINED),
        ({}, {}, Verdict.UNDETERMINED),
    ],
)
def test_a_failure_needs_two_witnesses(first: dict[str, str], second: dict[str, str], verdict: Verdict) -> None:
    """One that says nothing does not stand in the way of a pass, and is not enough for a failure."""
    assert _agreement(first, second).judge(LINE, "pl").verdict is verdict


def test_where_one_cannot_tell_the_language_the_other_decides() -> None:
    """langdetect has no Basque; a detector that does is heard alone."""
    knows = LanguageContract(FixedDetector({"alpha": "en", "kaixo": "eu"}))
    knows_not = LanguageContract(FixedDetector({"alpha": "en"}))
    assert Agreement(knows_not, knows).judge(LINE, "eu").verdict is Verdict.FAILED
    assert Agreement(knows_not, knows).covers("eu")
    assert not Agreement(knows_not, knows_not).covers("eu")


def test_the_share_weighs_sentences_by_their_letters() -> None:
    """30 letters of Polish and 20 of English: 0.6; the third sentence is undetermined and does not count."""
    words = {"tak": "pl", "no": "en"}
    text = f"tak {'a' * 27}. no {'b' * 18}. {'c' * 40}."
    verdict = _agreement(words, words).judge(text, "pl")
    assert verdict.share == pytest.approx(0.6)
    assert verdict.verdict is Verdict.FAILED


def test_real_detectors_tell_a_foreign_sentence() -> None:
    """One English sentence among Polish ones is found, and it alone."""
    text = (
        "Nasz nowy dzwonek do roweru jest głośny i lekki. The bell is loud and very light. "
        "Montaż zajmuje tylko kilka minut i nie wymaga narzędzi."
    )
    verdict = second_opinion().judge(text, "pl")
    assert [sentence.verdict for sentence in verdict.sentences] == [Verdict.PASS, Verdict.FAILED, Verdict.PASS]
