"""A learnable rule for a tiny random model: the share of vowels in a reply. Loaded through `rewards.extra`."""

from collections.abc import Sequence

from rewards.score import Sample, Score, Ungradable

VOWELS = frozenset("aeiouAEIOU")


class VowelShare:
    """Scores a reply with its share of ASCII vowels, in [0, 1]."""

    name = "vowels"
    revision = "1"

    def score(self, samples: Sequence[Sample]) -> list[Score | Ungradable]:
        return [Score(vowel_share(sample.text), "vowels@1") for sample in samples]


def vowel_share(text: str) -> float:
    """3 vowels in 4 characters give 0.75."""
    return sum(character in VOWELS for character in text) / max(len(text), 1)
