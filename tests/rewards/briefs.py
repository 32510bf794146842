"""Briefs for the tests of rules."""

from dataclasses import replace

from agent.brief import Brief, Kind
from agent.completion import FinishReason
from rewards.part import RuleInput
from rewards.score import Sample


def create(language: str = "de", instructions: str = "Brot", **fields: object) -> Brief:
    """A brief for a new text."""
    return replace(Brief("acme", Kind.CREATE, language, instructions=instructions), **fields)  # type: ignore[arg-type]


def rework(kind: Kind, text: str, language: str = "de", **fields: object) -> Brief:
    """A brief for work on a text."""
    return replace(Brief("acme", kind, language, text=text), **fields)  # type: ignore[arg-type]


def given(text: str, brief: Brief, **settings: object) -> RuleInput:
    """What a rule sees of a reply."""
    return RuleInput(Sample(brief, text, FinishReason.STOP, num_tokens=1), **settings)  # type: ignore[arg-type]
