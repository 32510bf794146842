"""What the completions of a brief come to: the text that is served, and what belongs to its kind.

    completions, the best first ─► those that fit the schema ─► served, further texts
    completions of suggest ──────► their distinct alternatives

Knows no engine and no journal.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from agent.brief import Brief
from agent.completion import Completion
from agent.edits import Edit, find_edits
from agent.errors import SchemaNotMet
from agent.structure import prose_of, read_reply
from agent.suggestions import distinct, split_alternatives


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a caller gets of the completions."""

    served: int
    """Index of the completion that is served."""
    text: str
    alternatives: tuple[str, ...] | None = None
    """See agent.episode.Reply."""
    data: JsonValue = None
    """The text's JSON, where a schema was asked for."""

    def prose(self, brief: Brief) -> str:
        """The text as the language contract judges it: of JSON the strings alone."""
        return self.text if brief.schema is None else prose_of(self.text)

    def edits(self, brief: Brief) -> tuple[Edit, ...]:
        """What the text changes in the brief's. Compares them word by word, which takes a while for long ones."""
        return find_edits(brief.text, self.text)


def read_outcome(brief: Brief, completions: Sequence[Completion], order: Sequence[int], num_texts: int) -> Outcome:
    """The outcome of a brief.

    Args:
        order: indices of ``completions``, the one to be served first.
        num_texts: texts that the caller gets; where a schema is asked for there may be fewer, for those that do not fit
            it are left out.

    Raises:
        SchemaNotMet: none fits the brief's schema.
    """
    if brief.num_alternatives is not None:
        return _suggestions(completions, brief.num_alternatives)
    (served, data), *others = _fitting(brief, completions, order)
    texts = tuple(completions[index].text for index, _ in others[: num_texts - 1])
    return Outcome(served, completions[served].text, texts if num_texts > 1 else None, data)


def _suggestions(completions: Sequence[Completion], wanted: int) -> Outcome:
    """Alternatives out of several completions stand in the text one to a line."""
    found = [item for completion in completions for item in split_alternatives(completion.text)]
    alternatives = distinct(found, wanted)
    return Outcome(0, completions[0].text if len(completions) == 1 else "\n".join(alternatives), alternatives)


def _fitting(brief: Brief, completions: Sequence[Completion], order: Sequence[int]) -> list[tuple[int, JsonValue]]:
    """Index and JSON of each completion that fits the brief's schema, in order."""
    if brief.schema is None:
        return [(index, None) for index in order]
    found: list[tuple[int, JsonValue]] = []
    flaws: list[SchemaNotMet] = []
    for index in order:
        try:
            found.append((index, read_reply(completions[index].text, brief.schema)))
        except SchemaNotMet as error:
            flaws.append(error)
    if not found:
        raise flaws[0]
    return found
