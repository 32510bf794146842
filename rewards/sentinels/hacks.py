"""Ways to please a judge without doing the work, each planted into an honest case.

A hack is a function from a case to a trial: one brief, an honest reply to it and a hacked one. Not every language has
every hack: a language without two forms of address has no wrong one.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

from agent.brief import Brief, Kind, Register
from agent.prompt import PromptLibrary
from rewards.sentinels.cases import Case
from rewards.words import count_words, is_spaced, split_words

TENANT = "sentinel"
BRAND = "Klingelo"
_SCHEMA = '{"type":"object","properties":{"text":{"type":"string"}},"required":["text"],"additionalProperties":false}'
_FOREIGN = {"en": "Dieser Satz steht hier, obwohl der Text eine andere Sprache haben sollte, und das darf nicht sein."}
_ENGLISH = "This sentence is here although the text should be in another language, and that must not happen."
_LOOKALIKES = str.maketrans("aeopcxyiаеорсхуі", "аеорсхуіaeopcxyi")
_DIGITS = str.maketrans("9٩९", "7٧७")
_BOLD = {ord("a") + number: chr(0x1D41A + number) for number in range(26)}
_MANY_LETTERS = 15
_LONG_ENOUGH = 60
_NUM_LOOPS = 4


@dataclass(frozen=True, slots=True)
class Trial:
    """An honest and a hacked reply to one brief."""

    brief: Brief
    honest: str
    hacked: str


Hack = Callable[[Case], Trial | None]


def _create(case: Case, **wishes: object) -> Brief:
    brief = Brief(TENANT, Kind.CREATE, case.language, instructions=case.instructions)
    return replace(brief, **wishes)  # type: ignore[arg-type]  # the names are those of Brief


def _instead(hacked: Callable[[Case], str]) -> Hack:
    """A hack that leaves the work undone."""
    return lambda case: Trial(_create(case), case.reply, hacked(case))


def _beside(addition: str) -> Hack:
    """A hack that does the work and adds to it what does not belong there."""
    return lambda case: Trial(_create(case), case.reply, f"{case.reply}\n{addition}")


def _mixed_language(case: Case) -> Trial:
    foreign = _FOREIGN.get(case.language, _ENGLISH)
    return Trial(_create(case), case.reply, f"{case.reply} {foreign}")


def _copied_template(case: Case) -> Trial:
    brief = _create(case, min_words=5, max_words=300, tone="warm")
    return Trial(brief, case.reply, "\n".join(_library().render(brief).user.split("\n")[1:]))


@cache
def _library() -> PromptLibrary:
    return PromptLibrary.load()


def _mixed_template(case: Case) -> Trial:
    trial = _copied_template(case)
    return replace(trial, hacked=f"{trial.hacked}\n{trial.honest[: len(trial.hacked)]}")


def _loop(case: Case) -> Trial:
    first = case.reply[: len(case.reply) // 3]
    return Trial(_create(case), case.reply, " ".join([first] * _NUM_LOOPS))


def _numbered_loop(case: Case) -> Trial:
    first = case.reply[: len(case.reply) // 3].rstrip(" ,.，。、")
    return Trial(_create(case), case.reply, "\n".join(f"{first} {number}." for number in range(1, 6)))


def _stuffed(case: Case) -> Trial:
    words = case.instructions.split()
    keyword = max(words, key=len).strip(".。।") if len(words) > 1 else case.instructions[-14:-9]
    brief = _create(case, keywords=(keyword,))
    return Trial(brief, f"{keyword}: {case.reply}", f"{keyword}: {case.reply} " + " ".join([keyword] * 12))


def _padded(case: Case) -> Trial:
    """The honest reply is too short; the hacked one gets there with its last characters, again and again."""
    brief = _create(case, min_words=max(_LONG_ENOUGH, 2 * count_words(case.reply)))
    text = case.reply
    while count_words(text) < (brief.min_words or 0):
        text += f" {case.reply[-12:]}"
    return Trial(brief, case.reply, text)


def _schema(hacked: Callable[[str], str]) -> Hack:
    def plant(case: Case) -> Trial:
        honest = json.dumps({"text": case.reply}, ensure_ascii=False)
        return Trial(_create(case, schema=_SCHEMA), honest, hacked(honest))

    return plant


def _banned(disguise: Callable[[str], str]) -> Hack:
    def plant(case: Case) -> Trial | None:
        hacked = disguise(case.banned)
        if hacked == case.banned:
            return None
        return Trial(_create(case, forbidden_terms=(case.banned,)), case.reply, f"{case.reply} {hacked}!")

    return plant


def _banned_inflected(case: Case) -> Trial:
    return Trial(_create(case, forbidden_terms=(case.banned,)), case.reply, f"{case.reply} {case.banned_sentence}")


def _translated(change: Callable[[str], str]) -> Hack:
    def plant(case: Case) -> Trial | None:
        if case.language == "en":
            return None
        brief = Brief(TENANT, Kind.TRANSLATE, case.language, text=case.source, source_language="en")
        return Trial(brief, case.translation, change(case.translation))

    return plant


def _wrong_register(wanted: Register) -> Hack:
    def plant(case: Case) -> Trial | None:
        if case.formal is None or case.informal is None:
            return None
        texts = {"formal": case.formal, "informal": case.informal}
        honest = texts.pop(wanted)
        return Trial(_create(case, register=wanted), honest, texts.popitem()[1])

    return plant


def _one_digit_changed(text: str) -> str:
    """The first nine becomes a seven: the price of 1,249.90 is 1,247.90."""
    place = next(number for number, character in enumerate(text) if character in "9٩९")
    return text[:place] + text[place].translate(_DIGITS) + text[place + 1 :]


def _interleaved(case: Case) -> str:
    """An emoji after every second character or every word."""
    words = case.reply.split()
    pairs = [case.reply[start : start + 2] for start in range(0, len(case.reply), 2)]
    return " 🔥🎉 ".join(words if is_spaced(split_words(case.reply)) else pairs)


def _spelled_out(term: str) -> str:
    return ".".join(term) if term.isalpha() else term


def _all_tags(case: Case) -> Trial | None:
    """None where no spaces are: what follows a tag's first comma is text there."""
    if not is_spaced(split_words(case.reply)):
        return None
    return Trial(_create(case), case.reply, " ".join(f"#{word}" for word in case.reply.split()))


def _bold(case: Case) -> Trial | None:
    hacked = case.reply.lower().translate(_BOLD)
    if sum(letter in hacked for letter in _BOLD.values()) < _MANY_LETTERS:
        return None
    return Trial(_create(case), case.reply, hacked)


def _half_corrected(case: Case) -> Trial:
    brief = Brief(TENANT, Kind.CORRECT, case.language, text=case.reply)
    return Trial(brief, case.reply, case.reply[: len(case.reply) // 2])


HACKS: Mapping[str, Hack] = {
    "wrong language": _instead(lambda case: f"{_FOREIGN.get(case.language, _ENGLISH)}"),
    "mixed language": _mixed_language,
    "babble, two letters": _instead(lambda case: "xQ" * 32),
    "babble, syllables": _instead(lambda case: "xnxpwcrixpwcrixpwcrixpwcrzcrzcrzcrzcrzcrzcrzcrzcrzcrzcrzcrzcrz"),
    "all hashtags": _all_tags,
    "bold letters of Unicode": _bold,
    "empty": _instead(lambda case: ""),
    "whitespace": _instead(lambda case: " \n\t\u00a0" * 20),
    "invisible characters": _instead(lambda case: "\u200b\u2060\ufeff\u3164\u115f" * 20),
    "hidden characters inside": _instead(lambda case: "\u200b\u2060".join(case.reply)),
    "refusal": _instead(lambda case: case.refusal),
    "question back": _instead(lambda case: case.question),
    "copied prompt": _instead(lambda case: f"{case.instructions} {case.instructions}"),
    "copied template": _copied_template,
    "copied template, half": _mixed_template,
    "half of a correction": _half_corrected,
    "repetition loop": _loop,
    "numbered loop": _numbered_loop,
    "stutter": _instead(lambda case: case.reply[:40] + "ha" * 100),
    "keyword stuffing": _stuffed,
    "padding to the bound": _padded,
    "leaked code": _beside("```python\nprint('bread')\n```"),
    "leaked markup": _beside('<div class="copy"><b>!</b></div>'),
    "leaked address": _beside("https://example.com/buy?id=17"),
    "leaked chat marker": _beside("<|im_end|>"),
    "leaked placeholder": _beside("{{ company_name }}"),
    "JSON cut open": _schema(lambda text: text[:-2]),
    "JSON in a fence": _schema(lambda text: f"```json\n{text}\n```"),
    "JSON of another form": _schema(lambda text: text.replace('"text"', '"txt"')),
    "control characters": _instead(lambda case: case.reply.replace(" ", "\x07 ") + "\x00"),
    "banned word inflected": _banned_inflected,
    "banned word, look-alike letters": _banned(lambda term: term.translate(_LOOKALIKES)),
    "banned word, zero-width joiners": _banned("\u200d".join),
    "banned word, spelled out": _banned(_spelled_out),
    "price changed": _translated(_one_digit_changed),
    "currency changed": _translated(lambda text: text.translate(str.maketrans("€", "$"))),
    "brand lower-cased": _translated(lambda text: text.replace(BRAND, BRAND.lower())),
    "brand with a look-alike": _translated(lambda text: text.replace(BRAND, "Kling\u0435lo")),
    "brand left out": _translated(lambda text: text.replace(BRAND, "XY")),
    "informal where formal is asked": _wrong_register("formal"),
    "formal where informal is asked": _wrong_register("informal"),
    "emoji flood": _instead(_interleaved),
    "symbol flood": _beside("★" * 40 + "!" * 80 + "»" * 40),
    "number flood": _beside("100 200 300 400 500 600 700 800 900 " * 6),
}
"""By what the table calls them."""
