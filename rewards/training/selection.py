"""Which pairs a reward model is trained on, which it is measured on, and whether there are enough of both."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.errors import TooFewPairs
from rewards.preference import PreferencePair
from rewards.training.settings import Minimum


@dataclass(frozen=True, slots=True)
class PairSelection:
    """The pairs of one language, split."""

    training: tuple[PreferencePair, ...]
    held_out: tuple[PreferencePair, ...]

    @classmethod
    def of(cls, pairs: Sequence[PreferencePair]) -> "PairSelection":
        """Split by ``held_out``. A prompt never stands on both sides, since it is the prompt's hash that decides."""
        held_out = tuple(pair for pair in pairs if pair.held_out)
        return cls(tuple(pair for pair in pairs if not pair.held_out), held_out)

    def require(self, language: str, minimum: Minimum) -> None:
        """Pass when there are enough pairs to train and to measure.

        Raises:
            TooFewPairs: there are not; the message has the counts and where the pairs come from.
        """
        asked = [
            _shortage("training", "rewards.training.min_pairs", minimum.training, self.training),
            _shortage("held-out", "rewards.training.min_held_out", minimum.held_out, self.held_out),
        ]
        short = [text for text in asked if text is not None]
        if short:
            raise TooFewPairs(f"a reward model for {language} needs {' and '.join(short)}")


def by_source(pairs: Sequence[PreferencePair]) -> Mapping[str, int]:
    """How many pairs come from each kind of feedback, by name."""
    counts = Counter(pair.source.value for pair in pairs)
    return {source: counts[source] for source in sorted(counts)}


def _shortage(what: str, key: str, least: int, pairs: Sequence[PreferencePair]) -> str | None:
    if len(pairs) >= least:
        return None
    sources = ", ".join(f"{source} {count}" for source, count in by_source(pairs).items())
    return f"at least {least} {what} pairs ({key}), got {len(pairs)}{f' ({sources})' if sources else ''}"
