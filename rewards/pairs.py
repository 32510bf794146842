"""From feedback to candidates for preference pairs: pure functions of replies and what was said of them.

    edits        chosen = the edited text, rejected = what was edited; an unchanged text makes no pair
    comparisons  chosen = the better one
    ratings      two texts for one prompt of one tenant, rated apart by 2 stars or more, or one up and one down

A later opinion of a voice takes the place of its earlier one; a text's rating is the mean over voices. Candidates are
not weighed here: whose count, and how many, is the business of rewards.influence.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import product

from agent.brief import Brief
from agent.feedback import Comparison, Feedback, Rating, TextEdit, Thumbs
from rewards.preference import PairSource, PreferencePair, conversation

MIN_STARS_APART = 2.0
_OPPOSITE_THUMBS = 4.0
"""Up and down are as far apart as five stars and one."""


@dataclass(frozen=True, slots=True)
class JudgedReply:
    """One reply with all that was said of it."""

    request_id: str
    brief: Brief
    prompt: str
    """Digest of the prompt's tokens: what makes two replies siblings."""
    text: str
    """The one that was served."""
    is_list: bool
    """Whether it is a list of alternatives, which no single text compares with."""
    held_out: bool
    feedback: tuple[Feedback, ...]
    """Oldest first."""

    def text_of(self, feedback: Feedback) -> str:
        """The text that a piece of feedback is about."""
        return self.text if feedback.about is None else feedback.about


@dataclass(frozen=True)
class Candidate:
    """A pair that may be learnt from."""

    brief: Brief
    chosen: str
    rejected: str
    source: PairSource
    held_out: bool
    at: datetime
    """When the newest opinion that it rests on came."""
    end_users: frozenset[str]
    """Whose opinions it rests on; empty when none was named."""

    @cached_property
    def id(self) -> str:
        """A digest of tenant, brief as a reward model reads it, and both texts."""
        return _digest(self.brief.tenant, _wish(self.brief), self.chosen, self.rejected)

    @cached_property
    def question(self) -> str:
        """A digest of what was decided between: the same for a pair and its reverse."""
        return _digest(self.brief.tenant, _wish(self.brief), *sorted((self.chosen, self.rejected)))

    def pair(self) -> PreferencePair:
        """The pair; it names an end user when it rests on that one alone."""
        end_user = next(iter(self.end_users)) if len(self.end_users) == 1 else None
        return PreferencePair(
            self.id, self.brief, self.chosen, self.rejected, self.source, end_user=end_user, held_out=self.held_out
        )


def find_candidates(replies: Sequence[JudgedReply], *, max_per_prompt: int) -> list[Candidate]:
    """All candidates, edits first, then comparisons, then ratings.

    Args:
        max_per_prompt: most candidates out of ratings for one prompt of one tenant.
    """
    said = [*_edits(replies), *_comparisons(replies)]
    return [candidate for candidate in said if _differ(candidate)] + list(_ratings(replies, max_per_prompt))


def _edits(replies: Iterable[JudgedReply]) -> Iterator[Candidate]:
    for reply in replies:
        for piece in _newest(reply.feedback):
            if isinstance(piece.opinion, TextEdit) and _compares(reply, piece):
                yield _said(reply, piece, piece.opinion.text, reply.text_of(piece), PairSource.EDIT)


def _comparisons(replies: Iterable[JudgedReply]) -> Iterator[Candidate]:
    for reply in replies:
        for piece in _newest(reply.feedback):
            if isinstance(piece.opinion, Comparison) and _compares_with(reply, piece, piece.opinion):
                texts = reply.text_of(piece), piece.opinion.text
                chosen, rejected = texts if piece.opinion.better else texts[::-1]
                yield _said(reply, piece, chosen, rejected, PairSource.COMPARISON)


def _compares(reply: JudgedReply, piece: Feedback) -> bool:
    return piece.about is not None or not reply.is_list


def _compares_with(reply: JudgedReply, piece: Feedback, opinion: Comparison) -> bool:
    """A list compares with the list of another request, one of its items with another one."""
    return _compares(reply, piece) or (opinion.request_id is not None)


def _said(reply: JudgedReply, piece: Feedback, chosen: str, rejected: str, source: PairSource) -> Candidate:
    end_users = frozenset() if piece.end_user is None else frozenset({piece.end_user})
    return Candidate(reply.brief, chosen, rejected, source, reply.held_out, piece.at, end_users)


def _newest(feedback: Iterable[Feedback]) -> list[Feedback]:
    """The newest piece of each slot."""
    return list({piece.slot: piece for piece in feedback}.values())


def _differ(candidate: Candidate) -> bool:
    return candidate.chosen.split() != candidate.rejected.split()


@dataclass(frozen=True, slots=True)
class _RatedText:
    """One text for one prompt, with the newest rating and thumb of each voice."""

    text: str
    brief: Brief
    held_out: bool
    pieces: tuple[Feedback, ...]

    @property
    def stars(self) -> float | None:
        """Mean over voices; None without a rating."""
        return _mean([piece.opinion.stars for piece in self.pieces if isinstance(piece.opinion, Rating)])

    @property
    def thumbs(self) -> float | None:
        """Share of voices with a thumb up, less the share with one down; None without a thumb."""
        return _mean([1 if piece.opinion.up else -1 for piece in self.pieces if isinstance(piece.opinion, Thumbs)])

    @property
    def end_users(self) -> frozenset[str]:
        return frozenset(piece.end_user for piece in self.pieces if piece.end_user is not None)


def _ratings(replies: Iterable[JudgedReply], max_per_prompt: int) -> Iterator[Candidate]:
    prompts: dict[tuple[str, str], dict[str, list[tuple[JudgedReply, Feedback]]]] = {}
    for reply in replies:
        for piece in reply.feedback:
            if isinstance(piece.opinion, Rating | Thumbs):
                texts = prompts.setdefault((reply.brief.tenant, reply.prompt), {})
                texts.setdefault(reply.text_of(piece), []).append((reply, piece))
    for texts in prompts.values():
        yield from _rated_apart([_rated(text, said) for text, said in texts.items()], max_per_prompt)


def _rated(text: str, said: Sequence[tuple[JudgedReply, Feedback]]) -> _RatedText:
    """The same text may have answered several requests: a voice that rated each has one rating, its newest."""
    by_time = sorted((piece for _, piece in said), key=lambda piece: piece.at)
    newest = {(piece.voice, piece.opinion.kind): piece for piece in by_time}
    return _RatedText(text, said[0][0].brief, said[0][0].held_out, tuple(newest.values()))


def _rated_apart(texts: Sequence[_RatedText], most: int) -> list[Candidate]:
    """The pairs that are rated furthest apart. Only the ``most`` best and worst texts by stars, and by thumbs, are
    compared with each other, so that a prompt with thousands of replies costs no more."""
    pairs: dict[tuple[str, str], tuple[float, Candidate]] = {}
    scales: tuple[_Scale, ...] = (lambda text: text.stars, lambda text: text.thumbs)
    for best, worst in (_extremes(texts, most, scale) for scale in scales):
        for better, worse in product(best, worst):
            apart = _stars_apart(better, worse)
            if apart is not None:
                pairs[better.text, worse.text] = apart, _preferred(better, worse)
    widest = sorted(pairs.values(), key=lambda item: (-item[0], item[1].id))
    return [candidate for _, candidate in widest[:most] if _differ(candidate)]


_Scale = Callable[[_RatedText], float | None]


def _extremes(texts: Sequence[_RatedText], most: int, scale: _Scale) -> tuple[list[_RatedText], list[_RatedText]]:
    values = [(value, text) for text in texts if (value := scale(text)) is not None]
    ordered = [text for _, text in sorted(values, key=lambda item: (item[0], item[1].text))]
    return ordered[-most:], ordered[:most]


def _stars_apart(better: _RatedText, worse: _RatedText) -> float | None:
    """How far the first is rated above the second; None when it is not far enough, or stars and thumbs disagree."""
    stars = _difference(better.stars, worse.stars)
    is_up_and_down = better.thumbs is not None and worse.thumbs is not None and better.thumbs > 0 > worse.thumbs
    thumbs = _difference(better.thumbs, worse.thumbs) or 0.0
    if (stars is not None and stars < 0) or thumbs < 0:
        return None
    if stars is not None and stars >= MIN_STARS_APART:
        return stars
    return _OPPOSITE_THUMBS * thumbs / 2 if is_up_and_down else None


def _preferred(better: _RatedText, worse: _RatedText) -> Candidate:
    pieces = (*better.pieces, *worse.pieces)
    end_users = better.end_users | worse.end_users
    at = max(piece.at for piece in pieces)
    return Candidate(better.brief, better.text, worse.text, PairSource.RATING, better.held_out, at, end_users)


def _difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def _mean(values: Sequence[int]) -> float | None:
    return sum(values) / len(values) if values else None


def _wish(brief: Brief) -> str:
    return conversation(brief)[0].content


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
