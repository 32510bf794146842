"""Replies and what was said of them, for the tests of pairs and of their influence."""

from datetime import UTC, datetime, timedelta

from agent.brief import Brief, Kind
from agent.feedback import Feedback, Opinion
from rewards.pairs import JudgedReply

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def brief(prompt: str = "Eine Klingel.", tenant: str = "acme") -> Brief:
    return Brief(tenant, Kind.CREATE, "de", instructions=prompt)


def said(
    opinion: Opinion,
    end_user: str | None = "anna",
    *,
    at_s: float = 0,
    about: str | None = None,
    tenant: str = "acme",
    request: str = "req_1",
    key: str = "key_1",
) -> Feedback:
    """One piece, ``at_s`` seconds after noon."""
    return Feedback(tenant, request, "de", NOON + timedelta(seconds=at_s), key, opinion, end_user, about)


def reply(
    text: str,
    *feedback: Feedback,
    prompt: str = "Eine Klingel.",
    tenant: str = "acme",
    is_list: bool = False,
    held_out: bool = False,
) -> JudgedReply:
    """A reply to a prompt, whose digest is its text."""
    return JudgedReply("req_1", brief(prompt, tenant), prompt, text, is_list, held_out, feedback)
