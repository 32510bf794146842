"""The rules: length, repetition, substance, fidelity, and the words that they count. Values are computed by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.allowance import Allowance
from agent.brief import Brief, Kind
from agent.completion import FinishReason
from agent.contract import LanguageContract
from agent.fakes import FixedDetector
from rewards.fidelity import Fidelity
from rewards.length import Length, length_value
from rewards.part import RuleInput
from rewards.refusals import is_refusal
from rewards.repetition import repetition_value
from rewards.score import Sample, Ungradable
from rewards.substance import substance_value
from rewards.words import count_words, split_words


def _brief(**fields: object) -> Brief:
    given: dict[str, object] = {"kind": Kind.CREATE, "language": "de", "instructions": "Brot", **fields}
    return Brief("acme", **given)  # type: ignore[arg-type]


def _input(text: str, brief: Brief, brand_terms: tuple[str, ...] = ()) -> RuleInput:
    return RuleInput(Sample(brief, text, FinishReason.STOP, num_tokens=1), brand_terms)


@pytest.mark.parametrize(
    ("text", "num_words"),
    [
        ("The well-known cat’s bowl.", 4),
        ("我们的面包很好吃。", 8),  # eight characters, the full stop is none
        ("パンは3個です", 7),  # パ ン は 3 個 で す
        ("हमारी नई रोटी", 3),
        ("우리 빵은 맛있어요", 3),
        ("สวัสดีครับ", 2),  # base letters ส ว ส ด ค ร บ = 7, in fours, rounded up
        ("", 0),
        ("!? …", 0),
    ],
)
def test_words_are_counted_as_people_count_them(text: str, num_words: int) -> None:
    """Words where there are spaces, characters in Chinese and Japanese, four letters a word in Thai."""
    assert count_words(text) == num_words


def test_vowel_signs_do_not_break_words() -> None:
    """A Hindi word with vowel signs and a conjunct is one word."""
    assert split_words("हिन्दी कॉफ़ी।") == ["हिन्दी", "कॉफ़ी"]


@pytest.mark.parametrize(
    ("num_words", "min_words", "max_words", "value"),
    [
        (50, 40, 60, 1.0),
        (40, 40, 60, 1.0),
        (60, 40, 60, 1.0),
        (10, 40, 60, 0.25),  # 10 / 40
        (75, 40, 60, 0.75),  # 1 - 15 / 60
        (120, 40, 60, 0.0),
        (500, None, 60, 0.0),
        (30, None, 60, 1.0),
        (0, 40, None, 0.0),
        (900, 40, None, 1.0),
        (1, None, 0, 0.0),
    ],
)
def test_length(num_words: int, min_words: int | None, max_words: int | None, value: float) -> None:
    """1 inside the bounds, the share that is there below, a straight line to 0 at twice the limit above."""
    assert length_value(num_words, _brief(min_words=min_words, max_words=max_words)) == pytest.approx(value)


def test_length_is_absent_without_bounds() -> None:
    """A brief that asks for no length is not judged by it."""
    assert Length().judge(_input("Brot.", _brief())) is None
    assert Length().judge(_input("Gutes Brot.", _brief(min_words=4))) == 0.5


def test_bounds_are_those_of_each_alternative() -> None:
    """Three versions of two, three and six words keep to "at most 4 words" by 1, 1 and 1 - 2/4; a fourth that repeats
    the first, and whatever stands before the list, is nothing that the caller gets. As one text of 15 words it was 0.
    """
    text = "Hier sind drei:\n1. Gutes Brot.\n2. Brot vom Bäcker.\n3. Jeden Tag frisch aus dem Ofen.\n4. Gutes Brot!"
    brief = _brief(kind=Kind.SUGGEST, num_alternatives=3, max_words=4)
    assert Length().judge(_input(text, brief)) == pytest.approx((1 + 1 + 0.5) / 3)
    assert Length().judge(_input("1.", brief)) == 1.0  # no list at all is rewards.format's business


def test_keys_are_no_words_of_a_structured_reply() -> None:
    """The strings have 2 + 3 words; with both keys and the number it was 8 of at most 5, so 1 - 3/5."""
    brief = _brief(schema='{"type":"object"}', max_words=5)
    reply = '{"headline": "Frisches Brot", "body": "Warm vom Bäcker.", "rank": 1}'
    assert Length().judge(_input(reply, brief)) == 1.0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Das Brot ist frisch. Der Kuchen auch.", 1.0),
        # Three equal sentences of three words, of which two repeat; of six 4-grams only three do.
        ("Brot ist gut. Brot ist gut. Brot ist gut.", 1 / 3),
        # One word ten times, one line: seven 4-grams, six of which came before.
        ("ja " * 10, 1 / 7),
        ("ha" * 20, 0.0),
        ("", 1.0),
        ("我们的面包好。", 1.0),
    ],
)
def test_repetition(text: str, value: float) -> None:
    """1 minus the largest repeated share of sentences, n-grams or stuttered characters."""
    assert repetition_value(text) == pytest.approx(value)


def test_repeated_chinese_sentences_are_seen() -> None:
    """Without spaces the sentences still count: of three equal ones two repeat."""
    assert repetition_value("我们的面包好。" * 3) == pytest.approx(1 / 3)


@settings(deadline=None)  # cores are shared
@given(st.text())
def test_repetition_stays_in_bounds(text: str) -> None:
    """Any text gives a value in [0, 1]."""
    assert 0 <= repetition_value(text) <= 1


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can’t help with that.",
        "As an AI language model, I do not eat bread.",
        "Als KI kann ich kein Brot essen.",
        "Je suis désolé, mais je ne peux pas écrire ce texte.",
        "Lo siento, pero no puedo ayudarte.",
        "抱歉，我无法完成这个请求。",
        "申し訳ありませんが、お手伝いできません。",
        "عذرًا، لا يمكنني مساعدتك في ذلك.",
    ],
)
def test_refusals_are_recognised(text: str) -> None:
    """Assistants that decline are recognised in several languages."""
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "We are sorry that your order was late.",
        "Es tut uns leid, dass Ihre Bestellung zu spät kam.",
        "Als Kind war ich oft in dieser Bäckerei.",
        "大変申し訳ございません。商品は品切れです。",
        "Nous sommes désolés pour ce retard.",
        "Como iaque, el pan es bueno.",
    ],
)
def test_apologies_to_customers_are_no_refusals(text: str) -> None:
    """Copy that apologises passes, and so do words that begin like a phrase."""
    assert not is_refusal(text)


@pytest.mark.parametrize("text", ["", "  \n", "!!! 👍", "I'm sorry, but I can't do that."])
def test_empty_replies_and_refusals_have_no_substance(text: str) -> None:
    """Nothing, symbols alone and a refusal are worth 0."""
    assert substance_value(text, _brief(), FinishReason.STOP) == 0.0


def test_a_reply_of_its_own_has_full_substance_and_less_when_cut_off() -> None:
    """A truncated reply is worth 0.8 of the whole one."""
    text = "Frisch gebacken schmeckt es am besten."
    assert substance_value(text, _brief(), FinishReason.STOP) == 1.0
    assert substance_value(text, _brief(), FinishReason.LENGTH) == pytest.approx(0.8)


def test_copied_instructions_cost_substance() -> None:
    """A copy is worth 0; of six word triples three copied is free, five copied leave a third."""
    brief = _brief(instructions="eins zwei drei vier fünf sechs sieben")
    assert substance_value("Eins zwei drei vier fünf sechs sieben!", brief, FinishReason.STOP) == 0.0
    # Triples: 123 234 345 | 45a 5ab abc -> 3 of 6 copied: (1 - 0.5) / 0.5 = 1
    assert substance_value("eins zwei drei vier fünf a b c", brief, FinishReason.STOP) == 1.0
    # Triples: 123 234 345 456 567 | 67a -> 5 of 6 copied: (1 - 5/6) / 0.5 = 1/3
    assert substance_value("eins zwei drei vier fünf sechs sieben a", brief, FinishReason.STOP) == pytest.approx(1 / 3)


def test_a_correction_may_copy_and_must_keep_its_source() -> None:
    """Correcting one letter is worth 1, an unrelated reply 0."""
    brief = _brief(kind=Kind.CORRECT, instructions="", text="Das Brot ist frisch gebaken.")
    assert substance_value("Das Brot ist frisch gebaken.", brief, FinishReason.STOP) == 1.0
    assert substance_value("Das Brot ist frisch gebacken.", brief, FinishReason.STOP) == 1.0
    assert substance_value("Xy ölm.", brief, FinishReason.STOP) == 0.0


def test_a_correction_is_about_as_long_as_its_source() -> None:
    """Of 100 letters and spaces, ten are free: 70 are (80 / 100 - 0.5) / 0.3 = 1 of it, 50 are (60 / 100 - 0.5) / 0.3 =
    1/3 and 40 nothing; so are twice as many and a few. Half of the text was enough for all of the reward."""
    words = [f"wort{number:02d}" for number in range(14)] + ["ja"]  # 14 * 7 + 2 = 100
    brief = _brief(kind=Kind.CORRECT, instructions="", text=" ".join(words))
    for num_letters, value in ((100, 1.0), (90, 1.0), (70, 1.0), (50, 1 / 3), (40, 0.0)):
        assert substance_value(brief.text[:num_letters].strip() + "x", brief, FinishReason.STOP) == pytest.approx(
            value, abs=0.04
        )
    assert substance_value(f"{brief.text} {'Und noch etwas mehr davon. ' * 5}", brief, FinishReason.STOP) == 0.0
    short = _brief(kind=Kind.CORRECT, instructions="", text="danke sehr")
    assert substance_value("Danke sehr, wirklich!", short, FinishReason.STOP) == 1.0


def test_fidelity_is_the_share_in_the_language() -> None:
    """Letters in the wanted language over letters determined."""
    fidelity = Fidelity(LanguageContract(FixedDetector({"satz": "de", "sentence": "en"})))
    # 6+4+3+3+7 = 23 letters of German, 4+8+2+3+6 = 23 of English: one half.
    text = "Dieser Satz ist auf Deutsch. This sentence is not German."
    assert fidelity.judge(_input(text, _brief())) == pytest.approx(23 / 46)


def test_fidelity_counts_what_the_brief_lets_stand() -> None:
    """The same half of English is no loss where half may be, and one where less may be."""
    fidelity = Fidelity(LanguageContract(FixedDetector({"satz": "de", "sentence": "en"})))
    text = "Dieser Satz ist auf Deutsch. This sentence is not German."
    assert fidelity.judge(_input(text, _brief(allowance=Allowance(0.5, ("en",))))) == 1.0
    assert fidelity.judge(_input(text, _brief(allowance=Allowance(0.4, ("en",))))) == pytest.approx(0.5)


def test_fidelity_of_structured_replies_is_that_of_their_strings() -> None:
    """English keys do not count against German values; a reply that ignores the form is judged as it is."""
    fidelity = Fidelity(LanguageContract(FixedDetector({"satz": "de", "sentence": "en"})))
    brief = _brief(schema='{"type":"object"}')
    assert fidelity.judge(_input('{"sentence": "Das hier ist ein langer satz"}', brief)) == 1.0
    assert fidelity.judge(_input("This here is a long sentence", brief)) == 0.0


def test_fidelity_abstains_on_too_little_text() -> None:
    """When the contract determines nothing there is no number."""
    fidelity = Fidelity(LanguageContract(FixedDetector({"satz": "de"})))
    assert isinstance(fidelity.judge(_input("Ok", _brief())), Ungradable)


def test_a_long_reply_that_nobody_can_tell_is_in_no_language() -> None:
    """60 letters without a word that the detector knows are worth nothing; one letter less, or a language that the
    detector does not cover, cannot be graded."""
    fidelity = Fidelity(LanguageContract(FixedDetector({"satz": "de"})))
    babble = " ".join(["blorum"] * 10)
    assert fidelity.judge(_input(babble, _brief())) == 0.0
    assert isinstance(fidelity.judge(_input(babble[:-1], _brief())), Ungradable)
    assert isinstance(fidelity.judge(_input(babble, _brief(language="is"))), Ungradable)
    assert fidelity.judge(_input(f"Dieser Satz ist lang genug. {babble}", _brief())) == 1.0


def test_fidelity_ignores_brand_terms() -> None:
    """A brand term with a marker of another language says nothing."""
    fidelity = Fidelity(LanguageContract(FixedDetector({"sentence": "en", "satz": "de"})))
    text = "Dieser Satz von Sentence Inc ist auf Deutsch."
    assert fidelity.judge(_input(text, _brief())) == 0.0
    assert fidelity.judge(_input(text, _brief(), ("Sentence Inc",))) == 1.0
