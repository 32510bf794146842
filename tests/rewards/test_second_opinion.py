"""The gate's own language detector."""

import langdetect
import pytest

from agent.contract import LanguageContract
from agent.verdict import Verdict
from rewards.second_opinion import LangdetectDetector, LangidDetector, langdetect_labels


@pytest.fixture(scope="module")
def detector() -> LangdetectDetector:
    return LangdetectDetector()


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Die Jacke hält Sie auf langen Spaziergängen warm.", "de"),
        ("The jacket keeps you warm on long walks.", "en"),
        ("我们会在几个小时内回答您关于配送的所有问题。", "zh"),
    ],
)
def test_detects_plain_sentences(detector: LangdetectDetector, text: str, language: str) -> None:
    """Plain sentences are recognised; both kinds of Chinese are ``zh``."""
    detection = detector.detect(text)
    assert detection is not None
    assert detection.language == language


@pytest.mark.parametrize("text", ["", "   ", "123", "!?", "👍", "¡Compra ahora!", "送料無料"])
def test_says_nothing_on_too_little_text(detector: LangdetectDetector, text: str) -> None:
    """The library raises, or is sure of a wrong language; the detector answers None."""
    assert detector.detect(text) is None


def test_the_same_text_gets_the_same_answer(detector: LangdetectDetector) -> None:
    """Short text, on which the unseeded library changes its mind, is answered alike every time."""
    answers = {detector.detect("Hotel Restaurant Information Center") for _ in range(20)}
    assert len(answers) == 1
    assert None not in answers


def test_the_library_is_left_unseeded(detector: LangdetectDetector) -> None:
    """The seed belongs to the detector's own factory, not to the process."""
    assert detector.detect("Ein Satz mit einigen Wörtern.") is not None
    assert langdetect.DetectorFactory.seed is None


def test_labels_are_iso_codes(detector: LangdetectDetector) -> None:
    """55 profiles, two of them Chinese; Malay, Serbian and Basque are not among them."""
    assert len(detector.labels) == 54
    assert detector.labels.isdisjoint({"ms", "sr", "eu", "zh-cn"})


def test_the_contract_works_with_it(detector: LangdetectDetector) -> None:
    """Clean German passes, an English sentence in it fails, an uncovered language is undetermined."""
    contract = LanguageContract(detector)
    german = "Die Jacke hält Sie auf langen Spaziergängen im Regen warm und trocken."
    assert contract.judge(german, "de").verdict is Verdict.PASS
    assert contract.judge(f"{german} Every order is shipped on the same day.", "de").verdict is Verdict.FAILED
    assert contract.judge(german, "ms").verdict is Verdict.UNDETERMINED


def test_ideographs_are_judged_by_script_where_the_library_errs(detector: LangdetectDetector) -> None:
    """langdetect takes this Chinese sentence for Korean; without a syllable of Hangul the contract does not."""
    chinese = "我们的面包师在城市醒来之前就开始工作了。"
    detection = detector.detect(chinese)
    assert detection is not None
    assert detection.language == "ko"
    assert LanguageContract(detector).judge(chinese, "zh").verdict is Verdict.PASS


def test_the_labels_are_known_without_loading_a_profile(detector: LangdetectDetector) -> None:
    """The names of the profiles are what the loaded detector says it can tell."""
    assert langdetect_labels() == detector.labels
    assert {"zh", "de"} <= langdetect_labels()
    assert "ga" not in langdetect_labels()


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Die Jacke hält Sie auf langen Spaziergängen warm.", "de"),
        ("The jacket keeps you warm on long walks.", "en"),
        ("我们会在几个小时内回答您关于配送的所有问题。", "zh"),
        ("Jaka honek epel mantentzen zaitu ibilaldi luzeetan.", "eu"),
    ],
)
def test_the_other_detector_tells_plain_sentences(text: str, language: str) -> None:
    """py3langid, offline, also of Basque, which langdetect does not know; probabilities are in [0, 1], best first."""
    detector = LangidDetector()
    detection = detector.detect(text)
    assert detection is not None
    assert detection.language == language
    assert detection.candidates[0] == (language, detection.confidence)
    assert 0.5 < detection.confidence <= 1
    assert detector.detect("送料無料") is None
