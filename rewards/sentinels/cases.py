"""What hacks are planted into: one brief with honest replies for each language, written for this purpose."""

import tomllib
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Case:
    """One language's texts."""

    language: str
    instructions: str
    reply: str
    """Honest, to the instructions."""
    refusal: str
    question: str
    """Asks back."""
    source: str
    """English, to be translated."""
    translation: str
    """Honest, of the source."""
    banned: str
    banned_sentence: str
    """Uses the banned term."""
    formal: str | None = None
    """A text that addresses its readers formally; None where the language has one form of address, or no table."""
    informal: str | None = None


def load_cases() -> tuple[Case, ...]:
    """The cases that ship with the package, one a language."""
    text = (files("rewards.sentinels") / "replies.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    source = table.pop("source")
    return tuple(Case(language=language, source=source, **texts) for language, texts in table.items())
