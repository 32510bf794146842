"""Text whose language nobody can tell: a policy may not hide behind the contract's abstaining, and clean text must not
be taken for it. Gemma-3-270m, tuned on an H100, wrote such text in a quarter of its replies, up from a tenth."""

import pytest

from agent.brief import Brief, Kind
from agent.completion import FinishReason
from agent.contract import LanguageContract
from agent.language import FastTextDetector
from rewards.fidelity import Fidelity
from rewards.part import RuleInput
from rewards.score import Sample, Ungradable
from service.bench.language.samples import Split, clean_replies, domains

BABBLE = (
    "xxQxQxQxQxQxQxQxQxQxQxQxQxQxQxQxQxQxQxQxQyxQxQxQxQxQxQxQxQxQxQxQxQxQx",
    "nxnxnxnxnxnxnxnxnxnxnxnxnxnxnxnxnxnxnxnxnxnxnxnxnxnxnxnxnxnxnxnxnxnxnxnx)nxnxnxnxnxnx",
    "xnxpwcrixpwcrixpwcrixpwcrixpwcrixpwcrxpwcrzcrzcrzcrzcrzcrzcrzcrzcrzcrzcrzcrzcrzcrzcrz",
)
CUTS = (60, 100, 150, 200, 300)
MOST_ABSTAINED = 0.001


@pytest.fixture(scope="module")
def fidelity() -> Fidelity:
    """With the detector of the reward."""
    return Fidelity(LanguageContract(FastTextDetector()))


def _judged(fidelity: Fidelity, text: str, language: str, instructions: str = "Write.") -> float | Ungradable | None:
    brief = Brief("acme", Kind.CREATE, language, instructions=instructions)
    return fidelity.judge(RuleInput(Sample(brief, text, FinishReason.STOP, 64), ()))


@pytest.mark.parametrize("language", ["en", "it", "es", "nl", "ru", "ja"])
@pytest.mark.parametrize("text", BABBLE)
def test_babble_is_in_no_language(fidelity: Fidelity, text: str, language: str) -> None:
    """As a tuned model wrote it; it was Ungradable once, and thereby out of the training's reach."""
    assert _judged(fidelity, text, language) == 0.0


BREAD = "unser brot kommt jeden morgen warm aus dem ofen und riecht bis auf den platz hinaus"
_BOLD = {ord("a") + number: 0x1D41A + number for number in range(26)}
_RAISED = str.maketrans("abcdefghijklmnoprstuvwxyz", "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ")


@pytest.mark.parametrize(
    "text",
    [
        " ".join(f"#{word}" for word in BREAD.split()),
        " ".join(f"@{word}" for word in BREAD.split()),
        f"`{BREAD}`",
        BREAD.translate(_BOLD),
        BREAD.translate(_RAISED),
        "ᎠᏂᏴᏫᏯᎢ ᎠᎹᏱ ᎤᏂᏁᎸᎢ ᏗᎦᏚᎲᎢ ᎤᎾᏓᏤᎵᎦ ᎠᏍᎦᏯᎬᏱ ᏗᎧᎿᏩᏛᏍᏙᏗ ᎦᎪᏪᎸᎢ ᎤᏙᏢᏒ ᏙᏱ ᎨᏥᎶᏐᏅ ᎠᏂᏴᏫᏯᎢ ᎠᎹᏱ",
    ],
)
@pytest.mark.parametrize("language", ["de", "ja"])
def test_nothing_hides_where_the_contract_does_not_look(fidelity: Fidelity, text: str, language: str) -> None:
    """Tags, inline code, letters that only look like some, and scripts that no language of the table has: all were
    Ungradable and cost nothing."""
    assert _judged(fidelity, text, language) == 0.0


@pytest.mark.parametrize("text", ["#brot #ofen #morgen", "`brot und ofen`", BREAD.translate(_BOLD)[:30]])
def test_a_few_such_letters_are_too_little(fidelity: Fidelity, text: str) -> None:
    """To be held against a reply, as few plain letters are."""
    assert isinstance(_judged(fidelity, text, "de"), Ungradable)


def test_a_sentence_does_not_speak_for_a_flood_of_tags(fidelity: Fidelity) -> None:
    """It has 33 letters, ten tags have 90, which is more than twice as many: 33 / 123. Seven tags, 63, are free."""
    sentence = "Unser neues Brot kommt warm aus dem Ofen."
    assert _judged(fidelity, sentence + " #backstube" * 10, "de") == pytest.approx(33 / 123)
    assert _judged(fidelity, sentence + " #backstube" * 7, "de") == 1.0
    assert _judged(fidelity, sentence + " #backstube" * 10, "de", "Ein Satz und Hashtags.") == 1.0


def test_tags_that_a_brief_asks_for_are_not_held_against_it(fidelity: Fidelity) -> None:
    """Their language cannot be told, and they are what was wanted; a web address or fenced code stays out of it."""
    tags = " ".join(f"#{word}" for word in BREAD.split())
    assert isinstance(_judged(fidelity, tags, "de", "Zehn Hashtags für unsere Bäckerei."), Ungradable)
    assert isinstance(_judged(fidelity, f"https://example.com/{'a' * 80}", "de"), Ungradable)
    assert isinstance(_judged(fidelity, f"```\n# {BREAD}\n```", "de"), Ungradable)


def test_english_words_inside_of_a_sentence_are_not_in_its_language(fidelity: Fidelity) -> None:
    """Seventeen kana and kanji count three letters each, 51, and there are 42 Latin ones, of which 29 are words without
    a capital: 29 / 93 of the text, so (1 - 29 / 93) / 0.9 = 0.765. The detector hears Japanese, and it was 1. Words of
    the brief are no breach, and where Latin script is the language's own no words are counted.
    """
    text = "私たちの new bakery は Saturday morning に open します。 Fresh bread を毎日 bake しています。"
    assert _judged(fidelity, text, "ja") == pytest.approx((1 - 29 / 93) / 0.9)
    assert _judged(fidelity, text, "ja", "New bakery, open from Saturday morning; we bake bread.") == 1.0
    assert (
        _judged(fidelity, "我们的新面包店将于周六早上开业，每天都有新鲜的面包，欢迎大家来 bakery 品尝。", "zh") == 1.0
    )
    assert _judged(fidelity, "Unsere neue bakery öffnet am Samstagmorgen ihre Türen für alle.", "de") == 1.0


def test_clean_text_is_not_taken_for_babble(fidelity: Fidelity) -> None:
    """Of over ten thousand clean replies in 26 languages, whole and cut short, at most one in a thousand scores 0."""
    num_replies = num_zero = 0
    for split in Split:
        for domain in domains(split):
            for language in domain.sentences:
                texts = clean_replies(domain, language, 40)
                for text in [*texts, *(text[:cut] for text in texts for cut in CUTS)]:
                    value = _judged(fidelity, text, language)
                    num_replies += 1
                    num_zero += value == 0.0
    print(f"{num_zero} of {num_replies}")  # noqa: T201 - for the record
    assert num_replies > 10_000
    assert num_zero <= MOST_ABSTAINED * num_replies
