"""Language fidelity: how much of a reply is in the language that was asked for."""

import re
from functools import lru_cache

from agent.brief import Brief, Kind
from agent.contract import LanguageContract
from agent.language import find_language
from agent.script import WORD, Script, count_letters
from agent.sentences import strip_noise
from agent.structure import prose_of
from rewards.part import RuleInput
from rewards.score import Ungradable

FIDELITY = "fidelity"
_TELLABLE_LETTERS = 60
"""The contract abstains on next to no clean reply of so many letters or more: tests/rewards/test_babble.py."""
_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_SET_ASIDE = re.compile(rf"(?<!\w)[@\#][{WORD}]+ | `[^`\n]+`", re.VERBOSE)
"""Words that the contract does not read, though a reader does."""
_ASKS_FOR_TAGS = re.compile(
    r"(?i)\#|@|`|hash[ -]?tags?|handle|\bcode\b|х[еэ]ш-?тег|гештег|"
    r"هاشتا[جغق]|وسم|हैशटैग|แฮชแท็ก|ハッシュタグ|标签|標籤|해시태그"
)

_LATIN_WORD = re.compile(r"(?<![A-Za-z])[a-z]{3,}(?![A-Za-z])")
_FREE_LATIN = 0.1
_MOST_UNREAD = 2
"""Of a reply that has so many times more letters which nobody read than others, the others do not speak."""


class Fidelity:
    """The share of told text in the wanted language, or let stand beside it by the brief's allowance, less what Latin
    words take of text in another script.

    The contract abstains rather than guesses, so that no good reply is repaired. A policy that is judged only where
    something could be told learns to write what cannot be told: a long reply of which nothing could is wrong. Tags,
    inline code and letters of no language (bold ones) are such text too, and a few words among them speak for few.
    """

    name = FIDELITY

    def __init__(self, contract: LanguageContract) -> None:
        self._contract = contract

    def judge(self, given: RuleInput) -> float | Ungradable | None:
        """The share; Ungradable when the contract abstains on the whole of a short reply."""
        brief = given.sample.brief
        text = given.sample.text if brief.schema is None else prose_of(given.sample.text)
        verdict = self._contract.judge(text, brief.language, given.brand_terms, brief.allowance)
        letters = strip_noise(text, given.brand_terms)
        num_read, num_unread = sum(count_letters(letters).values()), _num_unread(text, letters, brief)
        if verdict.share is not None:
            share = verdict.share * _own_words(letters, num_read, brief)
            hides = num_unread >= max(_TELLABLE_LETTERS, _MOST_UNREAD * num_read)
            return share * num_read / (num_read + num_unread) if hides else share
        if num_read + num_unread >= _TELLABLE_LETTERS and self._contract.covers(brief.language):
            return 0.0
        return Ungradable("too little text to tell its language", judge=self.name)


def _num_unread(text: str, letters: str, brief: Brief) -> int:
    """Letters that the contract does not read and a reader does: tags and inline code, where the brief speaks of
    neither, and letters of no script of the table. ``letters`` is ``text`` without noise."""
    strange = 0 if letters.isascii() else sum(map(_is_strange, letters))
    if _ASKS_FOR_TAGS.search(f"{brief.instructions}\n{brief.text}"):
        return strange
    return strange + sum(sum(map(str.isalpha, word)) for word in _SET_ASIDE.findall(_CODE.sub(" ", text)))


@lru_cache(maxsize=16_384)
def _is_strange(letter: str) -> bool:
    return letter.isalpha() and not count_letters(letter)


def _own_words(letters: str, num_read: int, brief: Brief) -> float:
    """1 while at most a tenth of a text in another script than Latin is Latin words, falling to 0 when all of it is.

    A detector hears the language of a sentence by its grammar, however many of its words are English. Words that the
    brief has are no breach, but for a translation's source; names have capitals, and one or two letters are units.
    """
    language = find_language(brief.language)
    if language is None or Script.LATIN in language.scripts or brief.allowance.share > 0:
        return 1.0
    told = [brief.instructions, *brief.keywords, *(term for _, term in brief.glossary)]
    known = set(_LATIN_WORD.findall(" ".join([*told, "" if brief.kind is Kind.TRANSLATE else brief.text]).lower()))
    num_latin = sum(len(word) for word in _LATIN_WORD.findall(letters) if word not in known)
    return min(1.0, (1 - num_latin / num_read) / (1 - _FREE_LATIN)) if num_read else 1.0
