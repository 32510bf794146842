"""Where feedback is handed in and asked for: one desk per node.

    order ─► the reply in the journal ─► texts checked against it ─► store

What is kept stands by itself: a comparison holds the other text, so that it can be learnt from when the other reply has
left the journal.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from agent.episode import Episode
from agent.errors import InvalidInput, ReplyNotKept
from agent.feedback import Comparison, Feedback, Opinion
from agent.language import primary_code
from agent.texts import other_texts, served_text
from rewards.preference import conversation
from service.feedback.ports import Episodes, FeedbackStore, KeyedJobs
from service.feedback.records import ComparisonOrder, FeedbackOrder, Receipt, ReplyRef
from service.idempotency import IdempotencyKey
from service.tenancy.caller import Caller


class FeedbackDesk:
    """A node's feedback. ``on_kept`` hears of each piece that is new."""

    def __init__(
        self,
        store: FeedbackStore,
        episodes: Episodes,
        jobs: KeyedJobs,
        on_kept: Callable[[Feedback], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._episodes = episodes
        self._jobs = jobs
        self._on_kept = on_kept

    async def give(self, caller: Caller, order: FeedbackOrder, key: IdempotencyKey | None = None) -> Receipt:
        """Keep what a caller says of a reply.

        Raises:
            ReplyNotKept: the tenant's journal has no such reply (any longer).
            InvalidInput: a text or language that is none of the reply's, or a comparison with a reply to another brief.
            IdempotencyKeyReused: the key stands for another body.
            StoreError: nothing was kept.
        """
        episode = await self._reply(caller, order.reply)
        if order.about is not None:
            _require_own_text("about", order.about, episode)
        opinions = [*order.opinions]
        if order.comparison is not None:
            opinions.append(await self._compared(caller.tenant.id, episode, order.comparison, order.about))
        at = datetime.now(UTC)
        given = [self._piece(caller, order, episode, opinion, at) for opinion in opinions]
        is_new = await self._store.add(given, key)
        for piece, counts in zip(given, is_new, strict=True):
            if counts:
                self._on_kept(piece)
        kinds = [(piece.opinion.kind, counts) for piece, counts in zip(given, is_new, strict=True)]
        return Receipt(episode.id, episode.brief.language, tuple(kinds))

    async def given(self, caller: Caller, reply: ReplyRef) -> tuple[str, Sequence[Feedback]]:
        """The reply's own id and what is kept for it, the newest pieces, oldest first.

        Raises:
            ReplyNotKept: neither the reply nor feedback on it is kept.
            StoreError: the store could not be reached.
        """
        tenant = caller.tenant.id
        for request_id in _candidates(await self._request_id(tenant, reply), reply.language):
            if found := await self._store.of_request(tenant, request_id):
                return request_id, found
        return (await self._reply(caller, reply)).id, ()

    async def of_episode(self, episode: Episode) -> Sequence[Feedback]:
        """What is kept for an episode, whosever it is."""
        return await self._store.of_request(episode.brief.tenant, episode.id)

    @staticmethod
    def _piece(caller: Caller, order: FeedbackOrder, episode: Episode, opinion: Opinion, at: datetime) -> Feedback:
        return Feedback(
            tenant=caller.tenant.id,
            request_id=episode.id,
            language=episode.brief.language,
            at=at,
            key_id=caller.key_id,
            opinion=opinion,
            end_user=order.end_user,
            about=order.about,
        )

    async def _reply(self, caller: Caller, reply: ReplyRef) -> Episode:
        tenant = caller.tenant
        request_id = await self._request_id(tenant.id, reply)
        wanted = _candidates(request_id, reply.language)
        others = [f"{request_id}-{primary_code(code)}" for code in sorted(tenant.languages)]
        known = await self._episodes.known(tenant.id, [*wanted, *others])
        found = next((candidate for candidate in wanted if candidate in known), None)
        if found is None and known:
            spoken = ", ".join(candidate.removeprefix(f"{request_id}-") for candidate in known)
            raise InvalidInput(
                "language", f"must be a language of that call ({spoken}), got {reply.language or 'none'}"
            )
        episode = (await self._episodes.get_many(tenant.id, [found])).get(found) if found is not None else None
        if episode is None:
            raise ReplyNotKept(f"there is no reply to {request_id} in the journal.")
        if reply.language is not None and primary_code(reply.language) != episode.brief.language:
            raise InvalidInput("language", f"must be that of the reply, {episode.brief.language}, got {reply.language}")
        return episode

    async def _request_id(self, tenant: str, reply: ReplyRef) -> str:
        if reply.request_id is not None:
            return reply.request_id
        assert reply.key_name is not None
        job = await self._jobs.of_key(tenant, reply.key_name)
        if job is None:
            raise ReplyNotKept("there is no call with that idempotency key, or none that is still kept.")
        return job.order.request_id

    async def _compared(self, tenant: str, episode: Episode, order: ComparisonOrder, about: str | None) -> Comparison:
        if order.request_id is None:
            assert order.text is not None
            _require_own_text("comparison.than_text", order.text, episode)
            if order.text == (served_text(episode) if about is None else about):
                raise InvalidInput("comparison.than_text", "must be another text than the one it is compared with")
            return Comparison(order.better, order.text)
        other = (await self._episodes.get_many(tenant, [order.request_id])).get(order.request_id)
        if other is None:
            raise ReplyNotKept(f"there is no reply to {order.request_id}, the other one, in the journal.")
        if conversation(other.brief) != conversation(episode.brief):
            raise InvalidInput("comparison.than_request_id", "must be a reply to the same brief, got one to another")
        return Comparison(order.better, served_text(other), order.request_id)


def _candidates(request_id: str, language: str | None) -> list[str]:
    """Ids that the reply may have: its call's, and that of one of its call's languages."""
    return [request_id] if language is None else [request_id, f"{request_id}-{primary_code(language)}"]


def _require_own_text(field: str, text: str, episode: Episode) -> None:
    if text not in (served_text(episode), *other_texts(episode)):
        raise InvalidInput(field, "must be one of the reply's own texts, word for word, got another one")
