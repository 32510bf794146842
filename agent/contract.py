"""The language contract: every sentence of a reply is in the wanted language, or the reply breaks it.

    reply ─► sentences ─► units ─► script check ─► detector ─► verdict per sentence ─► verdict of the reply

One detection per reply misses nearly every reply with one foreign sentence in five; one per sentence finds them. Each
sentence is judged without noise (addresses, tags, code, numbers, brand terms). Sentences too short to be judged alone
are pooled with the short ones beside them. The contract abstains rather than guesses: a wrong alarm costs a good reply.

Short texts have a rule of their own. Fewer than 20 letters (an ideograph counts three) are pooled with short neighbours
of the same script; what is still short is held against the language only by a surer detector, and never for a language
that short text is often taken for (agent.relatives). In a foreign script three letters are enough, but for Latin ones,
which may spell a name.

What a tenant lets stand in other languages (agent.allowance) is told from breaches last, over the whole reply.

Knows nothing of models or prompts; what a language is called by the detector is its only outside knowledge.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from agent.allowance import NOTHING, Allowance
from agent.language import SOLE_LANGUAGES, Detection, LanguageDetector, find_language, primary_code
from agent.relatives import CONFUSABLE, UNLIKELY, UNLIKELY_LETTERS, VARIANTS
from agent.script import Script, count_letters
from agent.sentences import Sentence, split_sentences, strip_noise
from agent.verdict import LanguageVerdict, SentenceVerdict, Verdict

_POOL_LETTERS = 20
"""Sentences with fewer letters are pooled with short neighbours before they are judged."""
_FOREIGN_SCRIPT_LETTERS = 3
"""From so many letters on, text in a script that the wanted language does not use fails however short it is."""
_IDEOGRAPHIC = ("ja", "zh", "ko")
_KANJI_ONLY_LETTERS = 24
"""Eight ideographs: Japanese text as long as that holds kana."""
_PASS_SUPPORT = 0.4
"""Lowest probability of the wanted language, when it comes first, that passes."""


@dataclass(frozen=True, slots=True)
class _Bar:
    """What it takes to fail a unit: another language is this probable, and the wanted one less than that."""

    confidence: float
    support: float


_BAR = _Bar(confidence=0.45, support=0.1)
_SHORT_BAR = _Bar(confidence=0.7, support=0.03)
_NAME_BAR = 0.6
"""Latin letters in a reply of another script are a name unless a language is this probable."""
_CONFUSABLE_BAR = _Bar(confidence=0.95, support=0.02)


@dataclass(frozen=True, slots=True)
class _Judgement:
    verdict: Verdict
    language: str | None = None
    confidence: float = 0.0


_UNDETERMINED = _Judgement(Verdict.UNDETERMINED)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A sentence with its judgeable text and its letters by script, as script.count_letters counts them."""

    sentence: Sentence
    clean: str
    scripts: Mapping[Script, int]
    letters: int


@dataclass(frozen=True, slots=True)
class _Judged:
    """Pieces that were judged together."""

    pieces: Sequence[_Piece]
    judgement: _Judgement
    tolerated: bool = False
    """True for another language that the allowance lets stand; the verdict is then PASS."""

    @property
    def letters(self) -> int:
        return sum(piece.letters for piece in self.pieces)


class LanguageContract:
    """Judges replies with one detector. Holds no state of its own, so it is as safe to share as the detector."""

    def __init__(self, detector: LanguageDetector) -> None:
        self._detector = detector

    @property
    def labels(self) -> frozenset[str]:
        """Codes of the languages that the detector can tell."""
        return self._detector.labels

    def covers(self, language: str) -> bool:
        """True when the detector can tell that text is in ``language``."""
        return primary_code(language) in self._detector.labels

    def judge(
        self, text: str, wanted: str, brand_terms: Sequence[str] = (), allowance: Allowance = NOTHING
    ) -> LanguageVerdict:
        """The verdict on ``text``, sentence by sentence; spans are those of ``text``.

        FAILED when a sentence failed, PASS when at least one passed and none failed, else UNDETERMINED. A language that
        the detector does not cover is judged by its script alone. Sentences without letters are left out. Sentences
        that ``allowance`` lets stand pass, with the language that they are in.
        """
        judged = [_Judged(unit, self._judge_unit(unit, wanted)) for unit in _pool(_pieces(text, brand_terms))]
        judged = _with_allowance(judged, allowance)
        sentences = tuple(_sentence_verdict(piece.sentence, item.judgement) for item in judged for piece in item.pieces)
        num_determined = _num_letters(judged, Verdict.PASS, Verdict.FAILED)
        share = _num_letters(judged, Verdict.PASS) / num_determined if num_determined else None
        verdict = _reply_verdict(sentences)
        words_pass = _words_pass(judged, wanted) if verdict is Verdict.PASS else None
        return LanguageVerdict(wanted, verdict, share, sentences, words_pass)

    def _judge_unit(self, unit: Sequence[_Piece], wanted: str) -> _Judgement:
        line = " ".join(piece.clean for piece in unit)
        letters = _letters_of(unit)
        detection = _by_script(letters) or _correct_ideographs(self._detector.detect(line), letters)
        if _is_foreign_script(letters, wanted):
            return _judge_foreign_script(detection, letters, wanted, self._variants(wanted))
        if detection is None or not self.covers(wanted) or _may_be_kanji(unit, letters, wanted):
            return _UNDETERMINED
        return _judge_detection(detection, self._variants(wanted), wanted, sum(letters.values()))

    @staticmethod
    def _variants(language: str) -> frozenset[str]:
        code = primary_code(language)
        return VARIANTS.get(code, frozenset({code}))


def _pieces(text: str, brand_terms: Sequence[str]) -> list[_Piece]:
    """Sentences that hold at least one letter after noise is stripped."""
    clean = strip_noise(text, brand_terms)
    pieces = []
    for sentence in split_sentences(text):
        line = clean[sentence.start : sentence.end].translate(_MARKUP)
        scripts = count_letters(line)
        if scripts:
            pieces.append(_Piece(sentence, " ".join(line.split()), scripts, sum(scripts.values())))
    return pieces


_MARKUP = {ord(mark): " " for mark in "*_`#|~<>[]{}=\\"}


def _pool(pieces: Sequence[_Piece]) -> list[list[_Piece]]:
    """Units to judge: a long sentence alone, runs of short ones in one script together until they are long enough."""
    units: list[list[_Piece]] = []
    open_unit: list[_Piece] = []
    for piece in pieces:
        if open_unit and not _pools_with(piece, open_unit):
            units.append(open_unit)
            open_unit = []
        open_unit = [*open_unit, piece]
        if sum(member.letters for member in open_unit) >= _POOL_LETTERS:
            units.append(open_unit)
            open_unit = []
    return [*units, open_unit] if open_unit else units


def _pools_with(piece: _Piece, unit: Sequence[_Piece]) -> bool:
    return piece.letters < _POOL_LETTERS and piece.scripts.keys() == unit[-1].scripts.keys()


def _letters_of(unit: Sequence[_Piece]) -> Mapping[Script, int]:
    """Letters of all pieces by script."""
    if len(unit) == 1:
        return unit[0].scripts
    return {script: sum(piece.scripts.get(script, 0) for piece in unit) for piece in unit for script in piece.scripts}


def _is_foreign_script(letters: Mapping[Script, int], wanted: str) -> bool:
    """True when most letters are in scripts that the wanted language does not use."""
    language = find_language(wanted)
    if language is None:
        return False
    foreign = sum(count for script, count in letters.items() if script not in language.scripts)
    return foreign >= _FOREIGN_SCRIPT_LETTERS and 2 * foreign > sum(letters.values())


def _judge_foreign_script(
    detection: Detection | None, letters: Mapping[Script, int], wanted: str, variants: frozenset[str]
) -> _Judgement:
    """A foreign script fails. Latin letters may spell a name in any language, so few of them need a sure detector."""
    if detection is None or detection.language in variants:
        return _UNDETERMINED
    is_name_like = max(letters, key=letters.__getitem__) is Script.LATIN and sum(letters.values()) < _POOL_LETTERS
    if is_name_like and detection.confidence < _NAME_BAR:
        return _UNDETERMINED
    return _Judgement(Verdict.FAILED, detection.language, detection.confidence)


def _judge_detection(detection: Detection, variants: frozenset[str], wanted: str, num_letters: int) -> _Judgement:
    support = sum(probability for code, probability in _candidates(detection) if code in variants)
    if detection.language in variants:
        passes = support >= _PASS_SUPPORT
        return _Judgement(Verdict.PASS, primary_code(wanted), min(support, 1.0)) if passes else _UNDETERMINED
    bar = _bar(detection.language, wanted, num_letters)
    if bar is None or detection.confidence < bar.confidence or support >= bar.support:
        return _UNDETERMINED
    return _Judgement(Verdict.FAILED, detection.language, detection.confidence)


def _candidates(detection: Detection) -> tuple[tuple[str, float], ...]:
    return detection.candidates or ((detection.language, detection.confidence),)


def _bar(detected: str, wanted: str, num_letters: int) -> _Bar | None:
    """What ``detected`` takes to be held against ``wanted``; None when it cannot be in so little text."""
    if (detected in UNLIKELY or find_language(detected) is None) and num_letters < UNLIKELY_LETTERS:
        return None
    pair = {primary_code(detected), primary_code(wanted)}
    if any(pair <= group for group in CONFUSABLE):
        return _CONFUSABLE_BAR
    return _SHORT_BAR if num_letters < _POOL_LETTERS else _BAR


def _by_script(letters: Mapping[Script, int]) -> Detection | None:
    """The language that alone is written in the script of all letters, without asking a detector; None for others.

    Text in ideographs alone is Chinese, or Japanese that _may_be_kanji; with kana it is Japanese.
    """
    if letters.keys() <= {Script.HAN, Script.KANA}:
        return Detection("ja" if Script.KANA in letters else "zh", 1.0)
    sole = SOLE_LANGUAGES.get(next(iter(letters))) if len(letters) == 1 else None
    return None if sole is None else Detection(sole, 1.0)


def _correct_ideographs(detection: Detection | None, letters: Mapping[Script, int]) -> Detection | None:
    """Kana decides between Japanese and Chinese, which detectors mix up, also with Korean, beside Latin letters."""
    is_ideographic = Script.HAN in letters and Script.HANGUL not in letters
    if detection is None or not is_ideographic or detection.language not in _IDEOGRAPHIC:
        return detection
    language = "ja" if Script.KANA in letters else "zh"
    confidence = min(1.0, sum(probability for code, probability in _candidates(detection) if code in _IDEOGRAPHIC))
    return Detection(language, confidence, ((language, confidence),))


def _may_be_kanji(unit: Sequence[_Piece], letters: Mapping[Script, int], wanted: str) -> bool:
    """True for short lines of ideographs alone, as Japanese headings may be."""
    is_kanji_only = Script.HAN in letters and Script.KANA not in letters
    longest = max(piece.letters for piece in unit)
    return primary_code(wanted) == "ja" and is_kanji_only and longest < _KANJI_ONLY_LETTERS


def _sentence_verdict(sentence: Sentence, judgement: _Judgement) -> SentenceVerdict:
    return SentenceVerdict(sentence.start, sentence.end, judgement.verdict, judgement.language, judgement.confidence)


def _reply_verdict(sentences: Sequence[SentenceVerdict]) -> Verdict:
    verdicts = {sentence.verdict for sentence in sentences}
    if Verdict.FAILED in verdicts:
        return Verdict.FAILED
    return Verdict.PASS if Verdict.PASS in verdicts else Verdict.UNDETERMINED


def _with_allowance(judged: list[_Judged], allowance: Allowance) -> list[_Judged]:
    """Breaches that the allowance covers become passes, all of them or, when they are too much, none."""
    covered = [
        item.judgement.verdict is Verdict.FAILED and allowance.covers(item.judgement.language) for item in judged
    ]
    num_covered = sum(item.letters for item, is_covered in zip(judged, covered, strict=True) if is_covered)
    if not num_covered or num_covered > allowance.share * _num_letters(judged, Verdict.PASS, Verdict.FAILED):
        return judged
    return [
        replace(item, judgement=replace(item.judgement, verdict=Verdict.PASS), tolerated=True) if is_covered else item
        for item, is_covered in zip(judged, covered, strict=True)
    ]


def _num_letters(judged: Sequence[_Judged], *verdicts: Verdict) -> int:
    return sum(item.letters for item in judged if item.judgement.verdict in verdicts)


_ENGLISH_WORD = re.compile(r"(?<![A-Za-z])[a-z]{3,}(?![A-Za-z])")
"""Three or more small Latin letters: names, brands and acronyms have a capital."""


def _words_pass(judged: Sequence[_Judged], wanted: str) -> bool | None:
    """Whether no English word stands in a reply without a wrong sentence; None in Latin script, which has no such rule.

    Source: word-level pass rate, Marchisio et al. 2024, arXiv 2406.20052: English words alone are looked
    for, since they are told from other scripts without a dictionary.
    """
    language = find_language(wanted)
    if language is None or Script.LATIN in language.scripts:
        return None
    return not any(_ENGLISH_WORD.search(piece.clean) for item in judged if not item.tolerated for piece in item.pieces)
