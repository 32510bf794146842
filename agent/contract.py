"""The language contract: every sentence of a reply is in the wanted language, or the reply breaks it.

    reply ─► sentences ─► units ─► script check ─► detector ─► verdict per sentence ─► verdict of the reply

One detection per reply misses nearly every reply with one foreign sentence in five; one per sentence finds them. Each
sentence is judged without noise (addresses, tags, code, numbers, brand terms). Sentences too short to be judged alone
are pooled with the short ones beside them. The contract abstains rather than guesses: a wrong alarm costs a good reply.

Knows nothing of models or prompts; what a language is called by the detector is its only outside knowledge.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.language import Detection, LanguageDetector, find_language, primary_code
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

_VARIANTS: Mapping[str, frozenset[str]] = {
    code: frozenset(labels.split())
    for code, labels in {
        "ar": "ar arz",
        "az": "az azb",
        "bs": "bs hr sr sh",
        "de": "de als bar",
        "en": "en sco",
        "fa": "fa mzn",
        "hr": "hr bs sr sh",
        "id": "id ms",
        "it": "it lmo vec nap pms scn",
        "ku": "ku ckb",
        "ms": "ms id",
        "nl": "nl vls li",
        "no": "no nn",
        "pa": "pa pnb",
        "sh": "sh hr bs sr",
        "sr": "sr hr bs sh",
        "uk": "uk rue",
        "zh": "zh wuu yue",
    }.items()
}
"""Detector labels that count as the language: dialects and standards that short text does not tell apart."""

_CONFUSABLE: tuple[frozenset[str], ...] = tuple(
    frozenset(codes.split())
    for codes in (
        "no nn da sv",
        "cs sk",
        "es gl pt ca ast an",
        "hi mr ne bh mai sa",
        "ru uk be bg mk sr",
        "hr bs sr sh sl mk",
        "fa ps ur",
        "id ms jv su min",
        "nl af fy li nds",
        "de lb nds",
        "tr az tk",
        "az azb tr",
    )
)
"""Neighbours: a detector has to be nearly certain before one of them is held against another."""


_UNLIKELY = frozenset("an br co eo gn gv ia ie io kw la li oc qu rm sc vo wa".split())
"""Labels of the table that short text of larger languages is taken for; with them, every label outside of the table.

fastText finds "Usa estas palabras clave" to be Esperanto with probability 0.99.
"""
_UNLIKELY_LETTERS = 50
"""An unlikely language is believed from so many letters on."""


@dataclass(frozen=True, slots=True)
class _Judgement:
    verdict: Verdict
    language: str | None = None
    confidence: float = 0.0


_UNDETERMINED = _Judgement(Verdict.UNDETERMINED)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A sentence with its judgeable text. ``letters`` counts as script.count_letters does."""

    sentence: Sentence
    clean: str
    letters: int


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

    def judge(self, text: str, wanted: str, brand_terms: Sequence[str] = ()) -> LanguageVerdict:
        """The verdict on ``text``, sentence by sentence; spans are those of ``text``.

        FAILED when a sentence failed, PASS when at least one passed and none failed, else UNDETERMINED. A language that
        the detector does not cover is judged by its script alone. Sentences without letters are left out.
        """
        sentences: list[SentenceVerdict] = []
        num_determined = num_wanted = 0
        for unit in _pool(_pieces(text, brand_terms)):
            judgement = self._judge_unit(unit, wanted)
            letters = sum(piece.letters for piece in unit)
            num_determined += letters if judgement.verdict is not Verdict.UNDETERMINED else 0
            num_wanted += letters if judgement.verdict is Verdict.PASS else 0
            sentences += [_sentence_verdict(piece.sentence, judgement) for piece in unit]
        share = num_wanted / num_determined if num_determined else None
        return LanguageVerdict(wanted, _reply_verdict(sentences), share, tuple(sentences))

    def _judge_unit(self, unit: Sequence[_Piece], wanted: str) -> _Judgement:
        line = " ".join(piece.clean for piece in unit)
        letters = count_letters(line)
        detection = _correct_ideographs(self._detector.detect(line), letters)
        if _is_foreign_script(letters, wanted):
            return _judge_foreign_script(detection, letters, wanted, self._variants(wanted))
        if detection is None or not self.covers(wanted) or _may_be_kanji(unit, letters, wanted):
            return _UNDETERMINED
        return _judge_detection(detection, self._variants(wanted), wanted, sum(letters.values()))

    @staticmethod
    def _variants(language: str) -> frozenset[str]:
        code = primary_code(language)
        return _VARIANTS.get(code, frozenset({code}))


def _pieces(text: str, brand_terms: Sequence[str]) -> list[_Piece]:
    """Sentences that hold at least one letter after noise is stripped."""
    clean = strip_noise(text, brand_terms)
    pieces = []
    for sentence in split_sentences(text):
        line = clean[sentence.start : sentence.end].translate(_MARKUP)
        letters = sum(count_letters(line).values())
        if letters:
            pieces.append(_Piece(sentence, " ".join(line.split()), letters))
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
    return piece.letters < _POOL_LETTERS and count_letters(piece.clean).keys() == count_letters(unit[-1].clean).keys()


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
    if (detected in _UNLIKELY or find_language(detected) is None) and num_letters < _UNLIKELY_LETTERS:
        return None
    pair = {primary_code(detected), primary_code(wanted)}
    if any(pair <= group for group in _CONFUSABLE):
        return _CONFUSABLE_BAR
    return _SHORT_BAR if num_letters < _POOL_LETTERS else _BAR


def _correct_ideographs(detection: Detection | None, letters: Mapping[Script, int]) -> Detection | None:
    """Kana decides between Japanese and Chinese, which detectors mix up, also with Korean, on text without a space."""
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
