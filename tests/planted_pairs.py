"""Preference pairs with a planted taste: people prefer the reply that names the brand. Made by tests."""

import random

from agent.brief import Brief, Kind
from rewards.preference import PairSource, PreferencePair

BRAND = "Klingelo"
_WORDS = "frei gleich Würde Rechten geboren Menschen human dignity rights born equal".split()


def planted_pairs(num_training: int, num_held_out: int, *, seed: int = 0) -> list[PreferencePair]:
    """Pairs of distinct German prompts; a third each from edits, comparisons and ratings."""
    generator = random.Random(seed)
    return [_pair(generator, number, held_out=number >= num_training) for number in range(num_training + num_held_out)]


def _pair(generator: random.Random, number: int, *, held_out: bool) -> PreferencePair:
    sources = list(PairSource)
    brief = Brief("acme", Kind.CREATE, "de", instructions=f"{_text(generator)} {number}")
    return PreferencePair(
        id=f"pair_{number}",
        brief=brief,
        chosen=f"{_text(generator)} {BRAND}",
        rejected=_text(generator),
        source=sources[number % len(sources)],
        held_out=held_out,
    )


def _text(generator: random.Random) -> str:
    return " ".join(generator.choice(_WORDS) for _ in range(generator.randint(4, 10)))
