"""Anomalies in feedback: floods of equal ratings, and texts that nobody should learn to write."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from agent.brief import Brief
from agent.completion import FinishReason
from agent.contract import LanguageContract
from agent.feedback import Feedback, Rating, Thumbs
from agent.structure import prose_of
from agent.verdict import Verdict
from rewards.config import FeedbackConfig
from rewards.influence import LeftOut
from rewards.pairs import JudgedReply
from rewards.refusals import is_refusal
from rewards.substance import substance_value

_WINDOW_S = 3600.0
_NEARLY_ALL = 0.9
"""So many ratings of a flood are equal."""


class ChosenText:
    """``rewards.influence.TextFlaw``: what is wrong with a text that people preferred.

    Args:
        brand_terms: of a tenant and language; they may stand in any language.
    """

    def __init__(self, contract: LanguageContract, brand_terms: Callable[[str, str], Sequence[str]]) -> None:
        self._contract = contract
        self._brand_terms = brand_terms

    def __call__(self, brief: Brief, text: str) -> LeftOut | None:
        """The first flaw; None for a text without one. A language that cannot be told is none."""
        if is_refusal(text):
            return LeftOut.REFUSAL
        if substance_value(text, brief, FinishReason.STOP) == 0:
            return LeftOut.SUBSTANCE
        prose = text if brief.schema is None else prose_of(text)
        terms = (*self._brand_terms(brief.tenant, brief.language), *brief.brand_terms)
        verdict = self._contract.judge(prose, brief.language, terms, brief.allowance).verdict
        return LeftOut.LANGUAGE if verdict is Verdict.FAILED else None


def without_floods(replies: Sequence[JudgedReply], caps: FeedbackConfig) -> tuple[list[JudgedReply], int]:
    """The replies without ratings and thumbs that are part of a flood, and how many those were.

    A flood is more ratings of one end user, or through one key, of a tenant within an hour than the caps allow, nine in
    ten of them equal. Nothing of it is kept: which ones were meant cannot be told.
    """
    users: dict[tuple[str, str], list[Feedback]] = {}
    keys: dict[tuple[str, str], list[Feedback]] = {}
    for piece in (piece for reply in replies for piece in reply.feedback):
        if isinstance(piece.opinion, Rating | Thumbs):
            if piece.end_user is not None:
                users.setdefault((piece.tenant, piece.end_user), []).append(piece)
            keys.setdefault((piece.tenant, piece.key_id), []).append(piece)
    flooded = {id(piece) for group in users.values() for piece in _flood(group, caps.max_ratings_per_hour)}
    flooded |= {id(piece) for group in keys.values() for piece in _flood(group, caps.max_key_ratings_per_hour)}
    kept = [replace(reply, feedback=_without(reply.feedback, flooded)) for reply in replies]
    return kept, len(flooded)


def _without(feedback: Iterable[Feedback], flooded: set[int]) -> tuple[Feedback, ...]:
    return tuple(piece for piece in feedback if id(piece) not in flooded)


def _flood(ratings: Sequence[Feedback], limit: int) -> list[Feedback]:
    """The ratings that lie in some hour with more than ``limit`` of them, nearly all equal."""
    ordered = sorted(ratings, key=lambda piece: piece.at)
    hour: deque[int] = deque()
    values: Counter[object] = Counter()
    flooded: list[Feedback] = []
    first_unmarked = 0
    for index, piece in enumerate(ordered):
        hour.append(index)
        values[piece.opinion] += 1
        while (piece.at - ordered[hour[0]].at).total_seconds() >= _WINDOW_S:
            values[ordered[hour.popleft()].opinion] -= 1
        if len(hour) > limit and max(values.values()) >= _NEARLY_ALL * len(hour):
            flooded += ordered[max(first_unmarked, hour[0]) : index + 1]
            first_unmarked = index + 1
    return flooded
