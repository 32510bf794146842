"""The language contract, with the real detector on copy in thirteen languages and with a fixed one for its rules."""

import itertools
import random
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from agent.allowance import Allowance
from agent.contract import LanguageContract
from agent.fakes import FixedDetector
from agent.language import Detection, FastTextDetector
from agent.verdict import Verdict

_REPLIES: Mapping[str, Mapping[str, Sequence[str]]] = tomllib.loads(
    (Path(__file__).parent / "replies.toml").read_text(encoding="utf-8")
)
_FOREIGN = [language for language in _REPLIES if language != "en"]


@pytest.fixture(scope="module")
def contract() -> LanguageContract:
    return LanguageContract(FastTextDetector())


def _join(sentences: Sequence[str], language: str) -> str:
    return ("" if language in ("ja", "zh") else " ").join(sentences)


def _clean_replies(language: str, num_replies: int) -> list[list[str]]:
    rng = random.Random(language)
    return [rng.sample(list(_REPLIES[language]["sentences"]), 5) for _ in range(num_replies)]


def test_clean_replies_pass(contract: LanguageContract) -> None:
    """At most 3 % of clean replies of five sentences raise an alarm, over all languages."""
    verdicts = [
        contract.judge(_join(reply, language), language).verdict
        for language in _REPLIES
        for reply in _clean_replies(language, 20)
    ]
    assert verdicts.count(Verdict.FAILED) / len(verdicts) <= 0.03
    assert verdicts.count(Verdict.PASS) / len(verdicts) >= 0.97


def test_one_english_sentence_in_five_fails(contract: LanguageContract) -> None:
    """At least 98 % of replies with one English sentence in five fail, at any position and in every language."""
    num_caught = num_replies = 0
    english = itertools.cycle(_REPLIES["en"]["sentences"])
    for language in _FOREIGN:
        for index, reply in enumerate(_clean_replies(language, 20)):
            mixed = [*reply]
            mixed[index % 5] = next(english)
            num_caught += contract.judge(_join(mixed, language), language).verdict is Verdict.FAILED
            num_replies += 1
    assert num_caught / num_replies >= 0.98


@pytest.mark.parametrize("language", list(_REPLIES))
def test_short_lines_raise_no_alarm(contract: LanguageContract, language: str) -> None:
    """Headings and calls to action never fail alone, and a list of them passes."""
    short = _REPLIES[language]["short"]
    assert all(contract.judge(line, language).verdict is not Verdict.FAILED for line in short)
    assert contract.judge("\n".join(f"- {line}" for line in short), language).verdict is Verdict.PASS


def test_the_verdict_points_at_the_foreign_sentence(contract: LanguageContract) -> None:
    """Spans are those of the reply; the foreign sentence carries its language, and the share counts letters."""
    german, english = "Unsere Bäcker beginnen sehr früh mit der Arbeit.", "Our bakers start to work very early."
    text = f"{german} {english}"
    verdict = contract.judge(text, "de")
    assert [(text[s.start : s.end], s.verdict, s.language) for s in verdict.sentences] == [
        (german, Verdict.PASS, "de"),
        (english, Verdict.FAILED, "en"),
    ]
    # Letters without spaces and full stops: 40 German and 29 English ones.
    assert verdict.share == pytest.approx(40 / 69)
    assert verdict.verdict is Verdict.FAILED


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Спасибо!", "en"),
        ("谢谢", "de"),
        ("Kiitos paljon avustanne, hyvä asiakas", "ja"),
        ("Buy it here and now", "ar"),
    ],
)
def test_a_foreign_script_fails_however_short(contract: LanguageContract, text: str, wanted: str) -> None:
    """Text in a script that the language is not written in fails without much of it."""
    assert contract.judge(text, wanted).verdict is Verdict.FAILED


@pytest.mark.parametrize("text", ["iPhone 15 Pro Max", "Wi-Fi", "Visual Studio Code"])
def test_names_in_latin_letters_are_no_breach(contract: LanguageContract, text: str) -> None:
    """A product name alone on a line of a Japanese reply is undetermined."""
    assert contract.judge(text, "ja").verdict is Verdict.UNDETERMINED


@pytest.mark.parametrize(
    "text", ["", "   ", "12.50 €", "https://a.example/this/is/plain/english", "👍👍", "`print(value)`", "#summer @shop"]
)
def test_noise_alone_is_undetermined(contract: LanguageContract, text: str) -> None:
    """Without letters after noise is stripped there is no verdict, no share and no sentence."""
    verdict = contract.judge(text, "de")
    assert (verdict.verdict, verdict.share, verdict.sentences) == (Verdict.UNDETERMINED, None, ())


def test_brand_terms_are_ignored(contract: LanguageContract) -> None:
    """An English slogan that is a brand term does not break a German reply."""
    text = "We make your mornings better\nUnsere Bäcker beginnen sehr früh mit der Arbeit."
    assert contract.judge(text, "de").verdict is Verdict.FAILED
    assert contract.judge(text, "de", ("We make your mornings better",)).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Alle har rett til utdanning og til et fritt liv i trygghet.", "nb"),
        ("Alle har ret til uddannelse og til et frit liv i tryghed.", "da"),
        ("Semua orang dilahirkan merdeka dan mempunyai martabat yang sama.", "id"),
        ("Sva ljudska bića rađaju se slobodna i jednaka u dostojanstvu.", "hr"),
        ("Свако има право на живот, слободу и безбедност личности.", "sr"),
        ("Os nossos clientes podem cancelar quando quiserem.", "pt-BR"),
    ],
)
def test_close_relatives_are_not_held_against_each_other(contract: LanguageContract, text: str, wanted: str) -> None:
    """Neighbouring languages and old or regional codes do not fail each other's plain sentences."""
    assert contract.judge(text, wanted).verdict is not Verdict.FAILED


def test_an_unlikely_language_is_not_believed_in_short_text(contract: LanguageContract) -> None:
    """fastText takes these Spanish and Portuguese lines for Esperanto, with certainty; the contract abstains."""
    assert contract.judge("Usa estas palabras clave:", "es").verdict is Verdict.UNDETERMINED
    assert contract.judge("Use estas palavras-chave:", "pt").verdict is Verdict.UNDETERMINED


def test_kana_decides_between_japanese_and_chinese(contract: LanguageContract) -> None:
    """Chinese without kana never passes as Japanese, nor does Japanese with kana pass as Chinese."""
    chinese, japanese = "我们的面包师在城市醒来之前就开始工作了。", "正午までのご注文は、すべて当日に発送いたします。"
    assert contract.judge(chinese, "ja").verdict is Verdict.FAILED
    assert contract.judge(japanese, "zh").verdict is Verdict.FAILED
    assert contract.judge(chinese, "zh").verdict is Verdict.PASS
    assert contract.judge("送料無料", "ja").verdict is Verdict.UNDETERMINED


def test_a_language_that_the_detector_does_not_know_is_judged_by_script_alone(contract: LanguageContract) -> None:
    """Zulu is not among the detector's labels: its text is undetermined, Cyrillic in it still fails."""
    assert not contract.covers("zu")
    assert contract.judge("Siyabonga kakhulu ngokubekezela kwenu.", "zu").verdict is Verdict.UNDETERMINED
    assert contract.judge("Большое спасибо за терпение.", "zu").verdict is Verdict.FAILED


def test_short_sentences_are_pooled_until_there_is_enough_to_judge() -> None:
    """Three lines of seven letters, too short alone, are judged as one; a long line between short ones stands alone."""
    detector = _Recorder({"wort": "de"})
    LanguageContract(detector).judge("Wort ab\nWort ab\nWort ab\nWort ab\nEin langer Satz mit einem Wort darin", "de")
    # Six letters each: four short lines make 24 letters, which is the first sum of at least 20.
    assert detector.lines == ["Wort ab Wort ab Wort ab Wort ab", "Ein langer Satz mit einem Wort darin"]


def test_an_unsure_detector_gives_no_verdict() -> None:
    """A wrong language at low confidence is undetermined, at high confidence a failure."""
    text = "Every sentence here is the same one"
    unsure = LanguageContract(FixedDetector({"sentence": "en", "satz": "de"}, confidence=0.3))
    sure = LanguageContract(FixedDetector({"sentence": "en", "satz": "de"}, confidence=0.9))
    assert unsure.judge(text, "de").verdict is Verdict.UNDETERMINED
    assert sure.judge(text, "de").verdict is Verdict.FAILED


_GERMAN, _ENGLISH = "Unsere Bäcker beginnen sehr früh mit der Arbeit.", "Our bakers start to work very early."


@pytest.mark.parametrize(
    ("allowance", "verdict"),
    [
        (Allowance(0.43, ("en",)), Verdict.PASS),
        (Allowance(0.43), Verdict.PASS),
        (Allowance(0.41, ("en",)), Verdict.FAILED),
        (Allowance(0.43, ("fr", "es")), Verdict.FAILED),
        (Allowance(0.43, ("fr", "en-GB")), Verdict.PASS),
        (Allowance(0.0, ("en",)), Verdict.FAILED),
    ],
)
def test_other_languages_stand_while_there_is_little_of_them(
    contract: LanguageContract, allowance: Allowance, verdict: Verdict
) -> None:
    """29 of 69 letters are English, 42 %. What stands passes with its own language; what is too much fails whole."""
    found = contract.judge(f"{_GERMAN} {_ENGLISH}", "de", (), allowance)
    assert found.verdict is verdict
    assert [sentence.language for sentence in found.sentences] == ["de", "en"]
    assert found.share == (1.0 if verdict is Verdict.PASS else pytest.approx(40 / 69))


def test_a_reply_in_an_allowed_language_alone_still_fails(contract: LanguageContract) -> None:
    """The allowance is for parts of a reply."""
    assert contract.judge(_ENGLISH, "de", (), Allowance(0.9, ("en",))).verdict is Verdict.FAILED


@pytest.mark.parametrize(
    ("text", "wanted", "words_pass"),
    [
        ("Наши пекари начинают работу очень рано утром.", "ru", True),
        ("Наши пекари начинают свой morning очень рано утром.", "ru", False),
        ("Наши пекари любят iPhone и USB в Москве.", "ru", True),
        ("Unsere Bäcker beginnen den Morning sehr früh with Arbeit.", "de", None),
        ("Our bakers start to work very early.", "ru", None),
    ],
)
def test_english_words_are_looked_for_in_other_scripts(
    contract: LanguageContract, text: str, wanted: str, words_pass: bool | None
) -> None:
    """Small Latin letters are a word, names and acronyms are not. Failed replies and Latin script have no answer."""
    assert contract.judge(text, wanted).words_pass is words_pass


def test_a_script_of_one_language_needs_no_detector() -> None:
    """Greek letters are Greek and Hangul is Korean, whatever a detector would say; kana makes ideographs Japanese."""
    blind = _Recorder({"none": "el"})
    contract = LanguageContract(blind)
    assert contract.judge("Κάθε άτομο έχει δικαίωμα στη ζωή.", "el").verdict is Verdict.PASS
    assert contract.judge("모든 사람은 생명에 대한 권리를 가진다.", "el").sentences[0].language == "ko"
    assert contract.judge("すべての人は、生命に対する権利を有する。", "el").sentences[0].language == "ja"
    assert blind.lines == []


def test_judging_is_fast(contract: LanguageContract) -> None:
    """500 characters take at most a few milliseconds of CPU (0.8 on a free core; the bound leaves room)."""
    text = " ".join(_REPLIES["de"]["sentences"])[:500]
    contract.judge(text, "de")
    started = time.process_time()
    for _ in range(20):
        contract.judge(text, "de")
    assert (time.process_time() - started) / 20 < 0.005


class _Recorder(FixedDetector):
    """Keeps the lines that it was asked about."""

    def __init__(self, markers: dict[str, str]) -> None:
        super().__init__(markers)
        self.lines: list[str] = []

    def detect(self, text: str) -> Detection | None:
        self.lines.append(text)
        return super().detect(text)
