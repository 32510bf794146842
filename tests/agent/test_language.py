"""The table of languages and the fastText detector."""

import threading

import pytest

from agent.language import LANGUAGES, FastTextDetector, find_language, primary_code


@pytest.fixture(scope="module")
def detector() -> FastTextDetector:
    return FastTextDetector()


def test_every_two_letter_label_is_in_the_table(detector: FastTextDetector) -> None:
    """Every ISO 639-1 label that the detector can return has a name and a script."""
    assert {label for label in detector.labels if len(label) == 2} <= LANGUAGES.keys()


def test_labels_are_the_176_of_lid_176(detector: FastTextDetector) -> None:
    """The bundled model has 176 labels."""
    assert len(detector.labels) == 176


@pytest.mark.parametrize(
    ("tag", "code"), [("pt-BR", "pt"), ("nb", "no"), ("zh_Hant_TW", "zh"), ("iw", "he"), ("EN", "en"), ("qqq", "qqq")]
)
def test_primary_code(tag: str, code: str) -> None:
    """Regions and scripts are dropped, and old or macro codes become the ones of the table."""
    assert primary_code(tag) == code


def test_find_language_answers_none_for_what_it_does_not_know() -> None:
    """An unknown tag has no row."""
    assert find_language("qqq") is None


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Das Wetter ist heute schön und wir gehen spazieren.", "de"),
        ("今日は天気が良いので散歩に行きます。", "ja"),
        ("El tiempo\nes muy bueno hoy.", "es"),
    ],
)
def test_detects_plain_sentences(detector: FastTextDetector, text: str, language: str) -> None:
    """A plain sentence is recognised, also one with a line break in it."""
    detection = detector.detect(text)
    assert detection is not None
    assert detection.language == language
    assert detection.candidates[0] == (language, detection.confidence)


@pytest.mark.parametrize("text", ["", "  \n ", "123 456", "!?…", "👍"])
def test_says_nothing_without_letters(detector: FastTextDetector, text: str) -> None:
    """fastText answers English for no text at all; the detector answers None."""
    assert detector.detect(text) is None


def test_threads_share_one_detector(detector: FastTextDetector) -> None:
    """Calls from several threads get the answers that one thread gets."""
    texts = {"Das ist ein schöner Tag.": "de", "This is a beautiful day.": "en", "C’est une belle journée.": "fr"}
    wrong: list[str] = []

    def work(text: str, language: str) -> None:
        for _ in range(50):
            detection = detector.detect(text)
            if detection is None or detection.language != language:
                wrong.append(text)

    threads = [threading.Thread(target=work, args=item) for item in texts.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
