"""Preference pairs of a node: feedback and the replies that it is about, weighed.

    store ─► pieces of a language, by reply ─► journal ─► floods left out ─► candidates ─► weighed (in a thread)

Computed anew each time it is asked for: what retention took, or a tenant changed its mind about, is not learnt from.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from agent.episode import Episode
from agent.feedback import Comment, Feedback, Implicit
from agent.texts import holds_one_text, served_text
from rewards.config import FeedbackConfig
from rewards.influence import LeftOut, PairSet, TextFlaw, weigh
from rewards.pairs import JudgedReply, find_candidates
from rewards.preference import PreferencePair
from rewards.quarantine import without_floods
from service.feedback.ports import Episodes, FeedbackStore
from service.journal import Split, split_of

_BATCH = 100
"""Replies that are read from the journal at once."""


class FeedbackPairs:
    """``rewards.preference.PreferencePairs`` over the node's feedback and journal.

    Args:
        held_out_share: the journal's, so that a prompt is on the same side here and there.
        is_served: whether a tenant is the node's still. Whoever was deleted moves nothing from then on.
        on_weighed: hears of each language that was weighed, and the result.
    """

    def __init__(
        self,
        store: FeedbackStore,
        episodes: Episodes,
        caps: FeedbackConfig,
        flaw: TextFlaw,
        *,
        held_out_share: float,
        is_served: Callable[[str], bool] = lambda tenant: True,
        on_weighed: Callable[[str, PairSet], None] = lambda language, pairs: None,
    ) -> None:
        self._store = store
        self._episodes = episodes
        self._caps = caps
        self._flaw = flaw
        self._held_out_share = held_out_share
        self._is_served = is_served
        self._on_weighed = on_weighed

    async def pairs(self, language: str) -> list[PreferencePair]:
        """See PreferencePairs.pairs."""
        return list((await self.weighed(language)).pairs)

    async def weighed(self, language: str) -> PairSet:
        """The pairs of a language with what was left out.

        Raises:
            StoreError: the store could not be reached.
        """
        tenants = [tenant for tenant in await self._store.tenants() if self._is_served(tenant)]
        replies = [reply for tenant in tenants for reply in await self._replies(tenant, language)]
        found = await asyncio.to_thread(weighed_pairs, replies, self._caps, self._flaw)
        self._on_weighed(language, found)
        return found

    async def _replies(self, tenant: str, language: str) -> list[JudgedReply]:
        """A tenant's replies with feedback that says which text is better, those that the journal still has."""
        by_request: dict[str, list[Feedback]] = {}
        async for batch in self._store.read(tenant):
            for piece in batch:
                if piece.language == language and not isinstance(piece.opinion, Comment | Implicit):
                    by_request.setdefault(piece.request_id, []).append(piece)
        ids = list(by_request)
        replies = []
        for first in range(0, len(ids), _BATCH):
            episodes = await self._episodes.get_many(tenant, ids[first : first + _BATCH])
            replies += [self._judged(episode, by_request[request_id]) for request_id, episode in episodes.items()]
        return replies

    def _judged(self, episode: Episode, feedback: Iterable[Feedback]) -> JudgedReply:
        return JudgedReply(
            request_id=episode.id,
            brief=episode.brief,
            prompt=episode.prompt_digest,
            text=served_text(episode),
            is_list=not holds_one_text(episode),
            held_out=split_of(episode.brief, self._held_out_share) is Split.HELD,
            feedback=tuple(feedback),
        )


def weighed_pairs(replies: Sequence[JudgedReply], caps: FeedbackConfig, flaw: TextFlaw) -> PairSet:
    """The pairs of one language's replies; floods count as left out, in ratings."""
    calm, num_flooded = without_floods(replies, caps)
    found = weigh(find_candidates(calm, max_per_prompt=caps.max_pairs_per_prompt), caps, flaw)
    if not num_flooded:
        return found
    return replace(found, left_out={**found.left_out, LeftOut.FLOOD: num_flooded})
