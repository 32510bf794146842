"""The texts of an episode as their readers saw them: the one that was served, and those beside it."""

from agent.episode import Episode
from agent.outcome import read_outcome


def served_text(episode: Episode) -> str:
    """What the reply's `text` was."""
    if episode.brief.num_alternatives is not None:
        return read_outcome(episode.brief, episode.completions, (), 1).text
    return episode.completions[episode.served].text


def other_texts(episode: Episode) -> tuple[str, ...]:
    """What feedback may name beside the served text: the alternatives of `suggest`, else every other completion, also
    one that `best_of` left out."""
    if episode.brief.num_alternatives is not None:
        return read_outcome(episode.brief, episode.completions, (), 1).alternatives or ()
    return tuple(item.text for index, item in enumerate(episode.completions) if index != episode.served)


def holds_one_text(episode: Episode) -> bool:
    """False when the served text is a list of alternatives, which no single text compares with."""
    return episode.brief.num_alternatives is None
