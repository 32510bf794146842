"""The texts of an episode as their readers saw them: the one that was served, and those beside it."""

from agent.episode import Episode
from agent.outcome import Outcome, read_outcome


def served_text(episode: Episode) -> str:
    """What the reply's `text` was."""
    if episode.brief.num_alternatives is not None:
        return _suggestions(episode).text
    if episode.repair is not None and episode.repair.text is not None:
        return episode.repair.text
    return episode.completions[episode.served].text


def other_texts(episode: Episode) -> tuple[str, ...]:
    """What feedback may name beside the served text: the alternatives of `suggest`, else every other completion, also
    one that `best_of` left out."""
    if episode.brief.num_alternatives is not None:
        return _suggestions(episode).alternatives or ()
    return tuple(item.text for index, item in enumerate(episode.completions) if index != episode.served)


def _suggestions(episode: Episode) -> Outcome:
    """What a suggestion came to: a retry is read alone, and so are the completions before one that was not served."""
    completions, newest = episode.completions, len(episode.completions) - 1
    if episode.repair is not None and episode.repair.sampled_once_more:
        completions = completions[newest:] if episode.served == newest else completions[:newest]
    return read_outcome(episode.brief, completions, (), 1)


def holds_one_text(episode: Episode) -> bool:
    """False when the served text is a list of alternatives, which no single text compares with."""
    return episode.brief.num_alternatives is None
