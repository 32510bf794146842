"""Line and word pass of one reply, whose means over replies are LPR and WPR.

Source: Marchisio et al. 2024, Understanding and Mitigating Language Confusion in LLMs (arXiv 2406.20052): LPR is the
share of replies in which every line of at least five tokens is in the wanted language; WPR, for scripts other than
Latin, the share of the replies that pass by lines and hold no English word.

Lines are told by the sentences in them, so that one English sentence in a long line fails it too. Where the paper asks
a dictionary of English, this asks for the commonest English words, which names and loanwords are not among.
"""

import re
from collections.abc import Sequence

from agent.language import find_language
from agent.script import Script
from agent.sentences import strip_noise
from agent.verdict import LanguageVerdict, Verdict
from rewards.words import split_words

MIN_LINE_WORDS = 5
"""Shorter lines (titles, calls to action) are not judged."""

_ENGLISH = frozenset(
    """
    about after all also an and any are as at be because been before but by can could do does each every find for from
    get give great had has have help here how if in into is it its just know like made make many may more most much
    must my new no not now of on one only or other our out over own people place please right see should so some such
    take than that the their them then there these they this those through time to two under use very want was way we
    well were what when where which while who will with work would year you your
    """.split()
)
_LATIN_WORD = re.compile(r"[A-Za-z]+")


def line_pass(text: str, verdict: LanguageVerdict) -> bool | None:
    """True when no line of five words or more has a sentence in another language.

    None when no such line could be told, and none of them failed.

    Args:
        verdict: the verdict on ``text``, whose sentences do not cross lines.
    """
    found: set[Verdict] = set()
    start = 0
    for line in text.split("\n"):
        end = start + len(line)
        if len(split_words(line)) >= MIN_LINE_WORDS:
            found |= {sentence.verdict for sentence in verdict.sentences if start <= sentence.start < end}
        start = end + 1
    if Verdict.FAILED in found:
        return False
    return True if Verdict.PASS in found else None


def word_pass(text: str, wanted: str, brand_terms: Sequence[str] = ()) -> bool | None:
    """True when ``text`` has none of the commonest English words; None for languages in Latin script, or unknown ones.

    To be asked of replies that pass by lines.
    """
    language = find_language(wanted)
    if language is None or Script.LATIN in language.scripts:
        return None
    words = _LATIN_WORD.findall(strip_noise(text, brand_terms).lower())
    return not any(word in _ENGLISH for word in words)
