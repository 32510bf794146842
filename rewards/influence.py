"""Whose preferences count, and how many: candidates in, pairs out, with what was left out by reason.

    candidates ─► one per question, by majority ─► tenants, end users in turn ─► flaws ─► caps ─► pairs

A pair that rests on several end users counts for each of them, and is over their cap only when it is so for all: an
honest opinion is not shut out by a stranger who rated the same text. The share of a tenant follows from what the others
gave: no share is enforced below `free_pairs_per_tenant`, so that one pair of another tenant takes nobody's data away.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import zip_longest

from agent.brief import Brief
from rewards.config import FeedbackConfig
from rewards.pairs import Candidate
from rewards.preference import PreferencePair

_ROUNDING = 1e-9
"""A third of 30 is 10, whatever floating point makes of it."""
_LOOKED_AT = 4
"""Candidates looked at per pair that a tenant may give: judging their texts takes time."""


class LeftOut(StrEnum):
    """Why feedback made no pair."""

    FLOOD = "flood"
    """Ratings: too many in an hour by one end user or key, nearly all equal."""
    LANGUAGE = "language"
    """The chosen text is in another language than the brief's."""
    SUBSTANCE = "no_substance"
    """The chosen text is empty or a copy of the brief."""
    REFUSAL = "refusal"
    """The chosen text is a refusal."""
    CONTRADICTED = "contradicted"
    """As many prefer the one text as the other."""
    END_USER_CAPPED = "end_user_capped"
    TENANT_CAPPED = "tenant_capped"
    SHARE_CAPPED = "tenant_share_capped"


TextFlaw = Callable[[Brief, str], LeftOut | None]
"""What is wrong with a text as an answer to a brief."""


@dataclass(frozen=True, slots=True)
class PairSet:
    """The pairs of one language, oldest first, and what was left out."""

    pairs: tuple[PreferencePair, ...]
    num_candidates: int
    """Before any cap, each question once."""
    left_out: Mapping[LeftOut, int] = field(default_factory=dict)


def weigh(candidates: Sequence[Candidate], caps: FeedbackConfig, flaw: TextFlaw) -> PairSet:
    """The pairs of one language under the caps."""
    left_out: Counter[LeftOut] = Counter()
    decided = _decided(candidates, left_out)
    by_tenant: dict[str, list[Candidate]] = {}
    for candidate in decided:
        by_tenant.setdefault(candidate.brief.tenant, []).append(candidate)
    admitted = {tenant: _admitted(_in_turns(group), caps, flaw, left_out) for tenant, group in by_tenant.items()}
    limit = _share_limit([len(group) for group in admitted.values()], caps)
    left_out[LeftOut.SHARE_CAPPED] += sum(max(0, len(group) - limit) for group in admitted.values())
    kept = [candidate for group in admitted.values() for candidate in group[:limit]]
    kept.sort(key=lambda candidate: (candidate.at, candidate.id))
    return PairSet(tuple(candidate.pair() for candidate in kept), len(decided), +left_out)


def _decided(candidates: Sequence[Candidate], left_out: Counter[LeftOut]) -> list[Candidate]:
    """One candidate for each question: the newest of the side that more people are on."""
    questions: dict[str, dict[str, list[Candidate]]] = {}
    for candidate in candidates:
        questions.setdefault(candidate.question, {}).setdefault(candidate.id, []).append(candidate)
    decided = []
    for sides in questions.values():
        ranked = sorted(sides.values(), key=_num_people, reverse=True)
        if len(ranked) > 1 and _num_people(ranked[0]) == _num_people(ranked[1]):
            left_out[LeftOut.CONTRADICTED] += 1
        else:
            decided.append(max(ranked[0], key=lambda candidate: candidate.at))
    return decided


def _num_people(side: Sequence[Candidate]) -> int:
    """End users on a side; all who are not named count as one."""
    named = frozenset[str]().union(*(candidate.end_users for candidate in side))
    return len(named) + any(not candidate.end_users for candidate in side)


def _in_turns(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Newest first, end users in turn: who gives most does not push the others out."""
    groups: dict[tuple[str, ...], list[Candidate]] = {}
    for candidate in sorted(candidates, key=lambda item: (item.at, item.id), reverse=True):
        groups.setdefault(tuple(sorted(candidate.end_users)), []).append(candidate)
    return [item for turn in zip_longest(*groups.values()) for item in turn if item is not None]


def _admitted(
    candidates: Sequence[Candidate], caps: FeedbackConfig, flaw: TextFlaw, left_out: Counter[LeftOut]
) -> list[Candidate]:
    """What one tenant may give, its share aside."""
    admitted: list[Candidate] = []
    num_of_user: Counter[str] = Counter()
    looked_at = candidates[: _LOOKED_AT * caps.max_pairs_per_tenant]
    left_out[LeftOut.TENANT_CAPPED] += len(candidates) - len(looked_at)
    for candidate in looked_at:
        reason = _over_cap(candidate, len(admitted), num_of_user, caps) or flaw(candidate.brief, candidate.chosen)
        if reason is not None:
            left_out[reason] += 1
            continue
        admitted.append(candidate)
        num_of_user.update(candidate.end_users)
    return admitted


def _over_cap(
    candidate: Candidate, num_admitted: int, num_of_user: Mapping[str, int], caps: FeedbackConfig
) -> LeftOut | None:
    if num_admitted >= caps.max_pairs_per_tenant:
        return LeftOut.TENANT_CAPPED
    users = candidate.end_users
    if users and all(num_of_user.get(user, 0) >= caps.max_pairs_per_end_user for user in users):
        return LeftOut.END_USER_CAPPED
    return None


def _share_limit(counts: Sequence[int], caps: FeedbackConfig) -> int:
    """Pairs that each tenant may give at most: the largest number that is within the share of what then remains."""
    share = max(caps.max_share_per_tenant, 1 / max(sum(count > 0 for count in counts), 1))
    limit = max(counts, default=0)
    while True:
        total = sum(min(count, limit) for count in counts)
        lower = max(caps.free_pairs_per_tenant, int(share * total + _ROUNDING))
        if lower >= limit:
            return limit
        limit = lower
