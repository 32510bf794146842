"""Detectors for the promotion gate: langdetect and py3langid, which share nothing with the reward's fastText.

A policy tuned against one detector may learn its blind spots; others do not have the same. rewards.agreement says how
the two are heard together.
"""

from pathlib import Path

import langdetect
from langdetect.detector_factory import DetectorFactory
from langdetect.lang_detect_exception import LangDetectException
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from agent.contract import LanguageContract
from agent.language import Detection, primary_code
from agent.script import count_letters
from rewards.agreement import Agreement

_SEED = 0
_MIN_LETTERS = 20
"""With less text, in letters of an alphabet, langdetect is often certain of a wrong language."""
_NUM_CANDIDATES = 5


def second_opinion() -> Agreement:
    """The gate's judge of language: langdetect and py3langid in agreement. Loads both models, in about a second."""
    return Agreement(LanguageContract(LangdetectDetector()), LanguageContract(LangidDetector()))


_PROFILES = Path(langdetect.__file__).parent / "profiles"


def langdetect_labels() -> frozenset[str]:
    """Codes of the languages that langdetect can tell, without loading it: its profiles are named by them."""
    return frozenset(primary_code(profile.name) for profile in _PROFILES.iterdir() if "." not in profile.name)


class LangdetectDetector:
    """langdetect with a fixed seed and profiles of its own, so that the library's global state does not matter.

    Source: Shuyo 2010, Language Detection Library for Java; 55 profiles, loaded here (about half a second).
    """

    def __init__(self) -> None:
        self._factory = DetectorFactory()
        self._factory.load_profile(str(_PROFILES))
        self._factory.set_seed(_SEED)
        self._labels = frozenset(primary_code(code) for code in self._factory.get_lang_list())

    @property
    def labels(self) -> frozenset[str]:
        return self._labels

    def detect(self, text: str) -> Detection | None:
        """See LanguageDetector.detect; None for less than 20 letters.

        Each call starts from the seed: the same text gets the same answer.
        """
        if sum(count_letters(text).values()) < _MIN_LETTERS:
            return None
        detector = self._factory.create()
        detector.append(text)
        try:
            candidates = _merged([(row.lang, row.prob) for row in detector.get_probabilities()])
        except LangDetectException:  # raised for text without a feature that any profile knows
            return None
        if not candidates:
            return None
        language, confidence = candidates[0]
        return Detection(language, confidence, candidates)


class LangidDetector:
    """py3langid with its model of about 140 languages, which ships in its wheel: nothing is downloaded.

    Source: Lui and Baldwin 2012, langid.py; Barbaresi's fork. Naive Bayes over byte n-grams, whose probabilities are
    scaled by the length of the text. Deterministic, and threads may share it: it only reads.
    """

    def __init__(self) -> None:
        self._identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        self._labels = frozenset(primary_code(code) for code in self._identifier.labels)

    @property
    def labels(self) -> frozenset[str]:
        return self._labels

    def detect(self, text: str) -> Detection | None:
        """See LanguageDetector.detect; None for less than 20 letters, as with langdetect."""
        if sum(count_letters(text).values()) < _MIN_LETTERS:
            return None
        best = _merged(self._identifier.rank(text)[:_NUM_CANDIDATES])
        return Detection(best[0][0], best[0][1], best)


def _merged(rows: list[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    """Probabilities by ISO 639-1 code, best first: ``zh-cn`` and ``zh-tw`` become ``zh``."""
    totals: dict[str, float] = {}
    for code, probability in rows:
        totals[primary_code(code)] = min(1.0, totals.get(primary_code(code), 0.0) + probability)
    return tuple(sorted(totals.items(), key=lambda row: row[1], reverse=True))
