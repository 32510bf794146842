"""The texts of an episode, as its readers saw them."""

from dataclasses import replace
from datetime import UTC, datetime

from agent.brief import Brief, Kind
from agent.completion import Completion, FinishReason, Sampling, VersionSpan
from agent.episode import Episode, PromptRef
from agent.texts import holds_one_text, other_texts, served_text
from agent.verdict import LanguageVerdict, Verdict


def episode(brief: Brief, *texts: str, served: int = 0) -> Episode:
    first = Completion("", (1,), (2,), (-0.5,), Sampling(max_tokens=8), FinishReason.STOP, VersionSpan(1, 1))
    verdict = LanguageVerdict("en", Verdict.PASS, 1.0, ())
    completions = tuple(replace(first, text=text) for text in texts)
    prompt = PromptRef("v1", brief.kind.value, brief.language)
    return Episode("req_1", datetime(2026, 1, 1, tzinfo=UTC), brief, prompt, completions, served, verdict)


def test_the_others_are_the_completions_that_were_not_served() -> None:
    """In the order in which they were sampled."""
    item = episode(Brief("acme", Kind.CREATE, "en", instructions="A bell."), "One.", "Two.", "Three.", served=1)
    assert served_text(item) == "Two."
    assert other_texts(item) == ("One.", "Three.")
    assert holds_one_text(item)


def test_suggestions_are_a_list_and_its_items() -> None:
    """One completion is served as it is; of several the distinct items stand one to a line."""
    brief = Brief("acme", Kind.SUGGEST, "en", instructions="Slogans.", num_alternatives=3)
    alone = episode(brief, "1. Ring loud\n2. Ride safe\n3. Be heard")
    assert served_text(alone) == "1. Ring loud\n2. Ride safe\n3. Be heard"
    assert other_texts(alone) == ("Ring loud", "Ride safe", "Be heard")
    several = episode(brief, "1. Ring loud", "1. Ride safe", "1. Ring loud")
    assert served_text(several) == "Ring loud\nRide safe"
    assert other_texts(several) == ("Ring loud", "Ride safe")
    assert not holds_one_text(several)
