"""Preference pairs as a file of JSON lines: how they reach the process that trains on them."""

from collections.abc import Iterable
from pathlib import Path

from pydantic import TypeAdapter

from rewards.preference import PreferencePair

_PAIR = TypeAdapter(PreferencePair)


def write_pairs(path: Path, pairs: Iterable[PreferencePair]) -> None:
    """Write the pairs, one a line, into a file of its owner's alone."""
    path.touch(mode=0o600)
    with path.open("wb") as file:
        for pair in pairs:
            file.write(_PAIR.dump_json(pair) + b"\n")


def read_pairs(path: Path) -> list[PreferencePair]:
    """The pairs of a file that `write_pairs` wrote. Raises pydantic.ValidationError, OSError."""
    with path.open("rb") as file:
        return [_PAIR.validate_json(line) for line in file]
