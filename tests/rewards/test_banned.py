"""Banned words: whole words, inflected, disguised, in scripts with and without spaces."""

import pytest

from agent.brief import Kind
from rewards.banned import Banned, banned_value
from rewards.lookalikes import num_invisible, skeleton, visible
from rewards.terms import find_terms, is_form_of
from tests.rewards.briefs import create, given, rework


@pytest.mark.parametrize(
    ("language", "term", "text"),
    [
        ("de", "billig", "Unser Brot ist billiger."),
        ("en", "cheap", "The cheapest bread in town."),
        ("fr", "gratuit", "La livraison est gratuite."),
        ("es", "barato", "La ropa más barata."),
        ("it", "economico", "La più economica."),
        ("pl", "tani", "Mąka jest tania."),
        ("cs", "levný", "Levná věc."),
        ("ru", "дешёвый", "Дешёвые вещи."),
        ("uk", "дешевий", "Дешева річ."),
        ("tr", "ucuz", "Daha ucuzdur."),
        ("ar", "رخيص", "أسعار رخيصة جدا"),
        ("hi", "सस्ता", "सस्ते कपड़े"),
        ("ko", "싼값", "싼값에 팔아요"),
        ("ja", "激安", "町で一番激安です。"),
        ("zh", "便宜", "我们的面包很便宜。"),
        ("fr", "bon marché", "Un pain BON  MARCHÉ !"),
        ("tr", "indirim", "İndirimli ürünler"),
        ("tr", "indirim", "BÜYÜK İNDİRİM"),
        ("tr", "ılık", "ILIK SU"),
        ("tr", "discount", "DISCOUNT"),
        ("ru", "дешёвый", "ДЕШЕВЫЙ хлеб"),
        ("ru", "дешевый", "дешёвый хлеб"),
        ("el", "φθηνός", "ΦΘΗΝΟΣ ΚΑΦΕΣ"),
        ("ar", "مجاني", "العرض المجاني"),
        ("ar", "مجاني", "والمجانية اليوم"),
        ("ar", "مجاني", "عرض مَجَّانِيّ"),
        ("ar", "رخيص", "للرخيص فقط"),
        ("he", "זול", "הזולים בעיר"),
        ("he", "מבצע", "ובמבצע גדול"),
        ("he", "זול", "זוֹל"),
    ],
)
def test_inflected_terms_are_found(language: str, term: str, text: str) -> None:
    """Endings, particles and casing do not hide a term."""
    assert banned_value(text, (term,), language) == 0.0


@pytest.mark.parametrize(
    ("language", "term", "text"),
    [
        ("en", "free", "Freedom for all."),
        ("en", "art", "We start the party."),
        ("de", "Rat", "Die Beratung ist gut."),
        ("de", "schon", "Schön war es."),
        ("de", "gutes Brot", "Brot ist gutes Essen."),
        ("uk", "каса", "Касета з піснями."),
        ("el", "νόμος", "Ο νομός μας."),  # law and prefecture: outside of capitals accents tell them apart
        ("ar", "تاب", "كتاب جديد"),  # a k that is the word's own
        ("he", "לום", "שלום לכולם"),
        ("tr", "sinir", "Ülkenin sınırı."),  # nerve and border
        ("tr", "sınır", "Sinir sistemi."),
    ],
)
def test_other_words_pass(language: str, term: str, text: str) -> None:
    """A word that holds the letters of a term, or its words in another order, is not the term."""
    assert banned_value(text, (term,), language) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "b\u0456llig",  # Cyrillic і
        "bil\u200dlig",
        "b\u00adillig",
        "b1ll1g",
        "b i l l i g",
        "b.i.l.l.i.g",
        "ＢＩＬＬＩＧ",
    ],
)
def test_disguises_are_seen_through(text: str) -> None:
    """Look-alike letters, joiners, digits, spelling out and full-width letters read as the word they show."""
    assert find_terms(f"Ganz {text} hier.", ["teuer", "billig"], "de") == ["billig"]


def test_look_alikes_work_both_ways() -> None:
    """A Latin e in a Russian word is seen through as a Cyrillic one in an English word is."""
    assert find_terms("д\u0065шёвый хлеб", ["дешёвый"], "ru") == ["дешёвый"]
    assert find_terms("ch\u0435ap", ["cheap"], "en") == ["cheap"]
    assert find_terms("\u0131nd\u0131rim", ["indirim"], "de") == ["indirim"]


def test_a_word_form_without_a_stemmer_may_change_two_letters() -> None:
    """Ukrainian has no stemmer: дешевий and дешева share five of seven letters, касета adds three to кас."""
    assert is_form_of("дешева", "дешевий", "uk")
    assert not is_form_of("касета", "каса", "uk")


def test_visible_text_has_nothing_hidden() -> None:
    """Joiners and fillers go, compatibility letters become plain ones; they are counted as hidden."""
    assert visible("B\u200b\u3164ﬁ") == "bfi"
    assert num_invisible("B\u200b\u3164ﬁ") == 2
    assert skeleton("10") == skeleton("10")
    assert skeleton("a1a") == "aia"


def test_terms_of_brief_and_tenant_count() -> None:
    """Both lists are looked for; without a term the rule is absent, and so it is for corrections and chats."""
    rule = Banned()
    assert rule.judge(given("Billig!", create(forbidden_terms=("billig",)))) == 0.0
    assert rule.judge(given("Billig!", create(), banned_terms=("billig",))) == 0.0
    assert rule.judge(given("Gut!", create(), banned_terms=("billig",))) == 1.0
    assert rule.judge(given("Billig!", create())) is None
    assert rule.judge(given("Billig!", rework(Kind.CORRECT, "Bilig!"), banned_terms=("billig",))) is None
