"""What the demo asks for, out of `briefs.toml`."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

MIN_WORDS, MAX_WORDS = 6, 9
"""What every brief allows: the untuned model often writes more."""


@dataclass(frozen=True, slots=True)
class DemoBrief:
    """One short text to write."""

    language: str
    instructions: str

    @property
    def body(self) -> dict[str, object]:
        """The request's JSON, without sampling."""
        return {
            "kind": "create",
            "language": self.language,
            "instructions": self.instructions,
            "min_words": MIN_WORDS,
            "max_words": MAX_WORDS,
        }


def load_briefs() -> list[DemoBrief]:
    """Every brief, languages in turn: the first of each, then the second of each, and so on."""
    tree = tomllib.loads((files("service.demo") / "briefs.toml").read_text(encoding="utf-8"))
    by_language = [
        [DemoBrief(language, entry["instruction"].format(subject=subject)) for subject in entry["subjects"]]
        for language, entry in tree.items()
    ]
    return [brief for column in zip(*by_language, strict=True) for brief in column]


def languages_of(briefs: Sequence[DemoBrief]) -> list[str]:
    """The languages, in order of first appearance."""
    return list(dict.fromkeys(brief.language for brief in briefs))


def first_of_each_language(briefs: Sequence[DemoBrief]) -> list[DemoBrief]:
    """One brief per language."""
    first: dict[str, DemoBrief] = {}
    for brief in briefs:
        first.setdefault(brief.language, brief)
    return list(first.values())
