"""Fakes of service.feedback.ports: feedback and episodes in memory."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

from agent.episode import Episode
from agent.errors import IdempotencyKeyReused, StoreError
from agent.fakes import MemoryJournal
from agent.feedback import Feedback
from service.feedback.ports import MAX_LISTED
from service.idempotency import HEADER, IdempotencyKey


class MemoryFeedback:
    """``FeedbackStore`` in memory, without retention; ``failure`` is raised instead of an answer while it is set."""

    def __init__(self, given: Iterable[Feedback] = ()) -> None:
        self.given = list(given)
        self.failure: StoreError | None = None
        self._newest = {(piece.tenant, piece.slot): piece.content for piece in self.given}
        self._keys: dict[tuple[str, str], str] = {}

    async def add(self, given: Sequence[Feedback], key: IdempotencyKey | None = None) -> list[bool]:
        """See FeedbackStore."""
        self._check()
        if key is None:
            is_new = [self._newest.get((piece.tenant, piece.slot)) != piece.content for piece in given]
        else:
            known = self._keys.get((given[0].tenant, key.name))
            if known not in (None, key.fingerprint):
                raise IdempotencyKeyReused(HEADER, "must be new for a new body, but it was used for another one")
            self._keys[given[0].tenant, key.name] = key.fingerprint
            is_new = [known is None] * len(given)
        for piece, keep in zip(given, is_new, strict=True):
            if keep:
                self.given.append(piece)
                self._newest[piece.tenant, piece.slot] = piece.content
        return is_new

    async def of_request(self, tenant: str, request_id: str) -> list[Feedback]:
        """See FeedbackStore."""
        self._check()
        found = [piece for piece in self.given if (piece.tenant, piece.request_id) == (tenant, request_id)]
        return found[-MAX_LISTED:]

    async def read(self, tenant: str) -> AsyncIterator[Sequence[Feedback]]:
        """See FeedbackStore; one batch."""
        self._check()
        yield [piece for piece in self.given if piece.tenant == tenant]

    async def tenants(self) -> Sequence[str]:
        """See FeedbackStore."""
        self._check()
        return sorted({piece.tenant for piece in self.given})

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure


class MemoryEpisodes:
    """``Episodes`` in memory; ``failure`` is raised instead of an answer while it is set."""

    def __init__(self, episodes: Iterable[Episode] = ()) -> None:
        self.all = list(episodes)
        self.failure: StoreError | None = None

    @property
    def episodes(self) -> Sequence[Episode]:
        """Everything there is."""
        return self.all

    async def known(self, tenant: str, request_ids: Sequence[str]) -> list[str]:
        """See Episodes."""
        found = await self.get_many(tenant, request_ids)
        return [request_id for request_id in request_ids if request_id in found]

    async def get_many(self, tenant: str, request_ids: Sequence[str]) -> Mapping[str, Episode]:
        """See Episodes."""
        self._check()
        wanted = set(request_ids)
        return {item.id: item for item in self.episodes if item.brief.tenant == tenant and item.id in wanted}

    async def find(self, request_id: str) -> Episode | None:
        """See Episodes."""
        self._check()
        return next((item for item in self.episodes if item.id == request_id), None)

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure


class JournalledEpisodes(MemoryEpisodes):
    """``Episodes`` over what a journal in memory holds at the time."""

    def __init__(self, journal: MemoryJournal) -> None:
        super().__init__()
        self._journal = journal

    @property
    def episodes(self) -> Sequence[Episode]:
        return self._journal.episodes
