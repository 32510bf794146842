"""Register: formal and informal address, by language."""

import pytest

from agent.brief import Kind
from rewards.addresses import Addressing, count_addresses, knows_address
from rewards.register import RegisterRule, register_value
from rewards.sentinels.cases import Case, load_cases
from tests.rewards.briefs import create, given, rework

_CASES = [case for case in load_cases() if case.formal is not None]


@pytest.mark.parametrize("case", _CASES, ids=lambda case: case.language)
def test_pure_texts_are_told_apart(case: Case) -> None:
    """In each of fourteen languages a formal text is wholly formal, an informal one wholly informal."""
    assert case.formal is not None
    assert case.informal is not None
    assert register_value(case.formal, case.language, is_formal=True) == 1.0
    assert register_value(case.formal, case.language, is_formal=False) == 0.0
    assert register_value(case.informal, case.language, is_formal=False) == 1.0
    assert register_value(case.informal, case.language, is_formal=True) == 0.0


def test_languages_of_the_table() -> None:
    """Those the product promises are there; English, which has one form, is not."""
    assert all(map(knows_address, "de fr es it pt pl nl tr cs ru uk sv ja ko zh hi id".split()))
    assert not knows_address("en")


@pytest.mark.parametrize(
    ("language", "text", "num_formal", "num_informal"),
    [
        ("de", "Hier finden Sie Ihr Brot, und du?", 2, 1),
        ("de", "Sie backt. Ihr Brot ist gut.", 0, 0),  # she, her: what begins a sentence says nothing
        ("fr", "Chez nous, c’est assez. Vous venez ?", 2, 0),  # vous, venez; not chez, assez
        ("es", "Descubre tu pan.", 0, 2),
        ("pl", "Nasz chleb znajdziesz tutaj.", 0, 1),  # znajdziesz, not nasz
        ("tr", "Deniz temiz, siparişiniz hazır.", 1, 0),
        ("ru", "На сайте вы найдёте хлеб.", 1, 0),  # вы; сайте is no imperative
        ("ja", "パンだよ。パンです。", 1, 1),
        ("ja", "おいしいですよ。", 0, 0),  # a polite ending that is softened
        ("hi", "बच्चों के लिए रोटी।", 0, 0),
        ("sv", "Här hittar du ditt bröd.", 0, 2),
        ("id", "Roti untuk Anda.", 1, 0),
    ],
)
def test_addresses_are_counted(language: str, text: str, num_formal: int, num_informal: int) -> None:
    """Words that only look like a form of address are none."""
    assert count_addresses(text, language) == Addressing(num_formal, num_informal)


def test_the_share_of_the_wanted_address() -> None:
    """Two formal, one informal: 2/3 formal, 1/3 informal. Nobody addressed, or no table: absent."""
    text = "Hier finden Sie Ihr Brot, und du?"
    assert register_value(text, "de", is_formal=True) == pytest.approx(2 / 3)
    assert register_value(text, "de-AT", is_formal=False) == pytest.approx(1 / 3)
    assert register_value("Brot ist gut.", "de", is_formal=True) is None
    assert register_value("Your bread.", "en", is_formal=True) is None


def test_the_briefs_wish_goes_before_the_tenants() -> None:
    """A brief's register wins over the tenant's address; without either, and for corrections, the rule is absent."""
    rule, text = RegisterRule(), "Wir backen für dich."
    assert rule.judge(given(text, create(register="informal"), address="formal")) == 1.0
    assert rule.judge(given(text, create(), address="formal")) == 0.0
    assert rule.judge(given(text, create())) is None
    assert rule.judge(given(text, rework(Kind.CORRECT, text), address="formal")) is None
