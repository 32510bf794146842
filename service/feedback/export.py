"""Pairs as JSON lines in TRL's conversational preference format, with an explicit prompt.

Source: TRL's documentation, "Dataset formats and types", section "Preference". Beside TRL's columns each line has `id`,
`source` and `held_out`. Who said so is not in it, neither end user nor tenant.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from agent.dialogue import Role, Turn
from rewards.preference import PreferencePair, conversation

MEDIA_TYPE = "application/jsonl"
_LINES = 100


def export_line(pair: PreferencePair) -> str:
    """A pair as one line of JSON, its end included."""
    row = {
        "id": pair.id,
        "source": pair.source.value,
        "held_out": pair.held_out,
        "prompt": [asdict(turn) for turn in conversation(pair.brief)],
        "chosen": [asdict(Turn(Role.ASSISTANT, pair.chosen))],
        "rejected": [asdict(Turn(Role.ASSISTANT, pair.rejected))],
    }
    return json.dumps(row, ensure_ascii=False) + "\n"


def export_chunks(pairs: Iterable[PreferencePair]) -> Iterator[str]:
    """The lines, many at a time: one event of the loop for each would cost more than the line."""
    lines: list[str] = []
    for pair in pairs:
        lines.append(export_line(pair))
        if len(lines) == _LINES:
            yield "".join(lines)
            lines.clear()
    yield "".join(lines)
