"""Samples."""

from datetime import UTC, datetime

from agent.brief import Brief, Kind
from agent.completion import Completion, FinishReason, Sampling, VersionSpan
from agent.contract import LanguageContract
from agent.episode import Episode, PromptRef
from agent.fakes import FixedDetector
from rewards.score import Sample


def _completion(text: str) -> Completion:
    return Completion(text, (1,), (2,), (-0.5,), Sampling(8), FinishReason.STOP, VersionSpan(0, 0))


def test_the_served_reply_is_the_reference_of_further_ones() -> None:
    """Of two completions the second was served."""
    brief = Brief("acme", Kind.CREATE, "de", instructions="x")
    verdict = LanguageContract(FixedDetector({})).judge("", "de")
    episode = Episode(
        "req_1",
        datetime.now(UTC),
        brief,
        PromptRef("v1", "create", "de"),
        (_completion("nicht gewählt"), _completion("gewählt")),
        1,
        verdict,
    )
    assert Sample.in_episode(episode, _completion("neu")) == Sample(brief, "neu", FinishReason.STOP, 1, "gewählt")
    assert Sample.of(brief, _completion("neu")).reference is None
