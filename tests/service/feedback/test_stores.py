"""The stores of feedback: real servers, and the one in memory, by the same tests."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from agent.errors import IdempotencyKeyReused, StoreError
from agent.feedback import Comment, Comparison, Feedback, Implicit, Opinion, Rating, Signal, TextEdit, Thumbs
from service.config import StoreConfig
from service.feedback.fakes import MemoryFeedback
from service.feedback.ports import MAX_LISTED, FeedbackStore
from service.feedback.redis_store import RedisFeedback
from service.idempotency import IdempotencyKey
from service.store import Store

OPINIONS: Sequence[Opinion] = (
    Rating(5),
    Thumbs(False),
    Comparison(True, "Zażółć\n🙂", "req_9"),
    TextEdit("Gęślą.", published=True),
    Comment("Kürzer."),
    Implicit(Signal.IGNORED),
)


def feedback(opinion: Opinion, request: str = "req_1", tenant: str = "acme", end_user: str = "anna") -> Feedback:
    at = datetime(2026, 1, 1, 12, 30, 15, 123456, tzinfo=UTC)
    return Feedback(tenant, request, "de", at, "key_1", opinion, end_user, about="Klingel.")


@pytest.fixture(params=["store", "memory"])
def kept(request: pytest.FixtureRequest) -> FeedbackStore:
    if request.param == "memory":
        return MemoryFeedback()
    return RedisFeedback(request.getfixturevalue("store"), StoreConfig())


async def everything(kept: FeedbackStore, tenant: str = "acme") -> list[Feedback]:
    return [piece async for batch in kept.read(tenant) for piece in batch]


async def test_every_kind_comes_back_as_it_went_in(kept: FeedbackStore) -> None:
    """By its request and in the tenant's whole, oldest first; other tenants and requests have nothing of it."""
    given = [feedback(opinion) for opinion in OPINIONS]
    assert await kept.add(given) == [True] * 6
    assert await kept.of_request("acme", "req_1") == given
    assert await everything(kept) == given
    assert await kept.of_request("zeta", "req_1") == await kept.of_request("acme", "req_2") == []
    assert await everything(kept, "zeta") == []
    assert await kept.tenants() == ["acme"]


async def test_the_same_feedback_posted_twice_counts_once(kept: FeedbackStore) -> None:
    """Also beside something new; a changed mind is new each time, back to the first too."""
    assert await kept.add([feedback(Rating(5))]) == [True]
    assert await kept.add([feedback(Rating(5)), feedback(Comment("Ja."))]) == [False, True]
    assert await kept.add([feedback(Rating(2))]) == [True]
    assert await kept.add([feedback(Rating(5))]) == [True]
    ratings = [piece.opinion for piece in await everything(kept)]
    assert ratings == [Rating(5), Comment("Ja."), Rating(2), Rating(5)]
    assert await kept.add([feedback(Rating(5), end_user="ben")]) == [True]
    assert await kept.add([feedback(Rating(5), tenant="zeta")]) == [True]


async def test_an_idempotency_key_counts_its_call_once(kept: FeedbackStore) -> None:
    """However late the repetition; the same words under another key are another act, another body is a mistake."""
    key = IdempotencyKey("k1", "body", 60)
    assert await kept.add([feedback(Rating(5))], key) == [True]
    assert await kept.add([feedback(Rating(1))]) == [True]
    assert await kept.add([feedback(Rating(5))], key) == [False]
    assert await kept.add([feedback(Rating(1))], replace(key, name="k2")) == [True]
    with pytest.raises(IdempotencyKeyReused, match="must be new for a new body"):
        await kept.add([feedback(Rating(3))], replace(key, fingerprint="other"))
    assert [piece.opinion for piece in await everything(kept)] == [Rating(5), Rating(1), Rating(1)]


async def test_the_newest_pieces_of_a_request_are_listed(kept: FeedbackStore) -> None:
    """At most 200 of them; all are read for pairs, in batches."""
    given = [feedback(Comment(str(number))) for number in range(MAX_LISTED + 50)]
    await kept.add(given)
    assert await kept.of_request("acme", "req_1") == given[50:]
    assert await everything(kept) == given


async def test_retention_drops_the_oldest_with_its_indexes(any_store: Store) -> None:
    """Three are kept; a request without a piece has no key left, and one that keeps a piece still lists it."""
    kept = RedisFeedback(any_store, StoreConfig(feedback_retention=3))
    for request in ("req_1", "req_2", "req_1", "req_3", "req_4"):
        await kept.add([feedback(Comment(request + str(await any_store.redis.dbsize())), request=request)])
    assert [piece.request_id for piece in await everything(kept)] == ["req_1", "req_3", "req_4"]
    assert len(await kept.of_request("acme", "req_1")) == 1
    assert await kept.of_request("acme", "req_2") == []
    keys = {str(key) for key in await any_store.redis.keys("t:acme:feedback:*")}
    assert {key.rpartition(":")[2] for key in keys} == {"req_1", "req_3", "req_4"}


async def test_a_record_that_cannot_be_read_is_skipped_and_logged(store: Store) -> None:
    """Neither a broken one nor one of a kind that this version does not know hides the others."""
    kept = RedisFeedback(store, StoreConfig())
    await store.redis.xadd("t:acme:feedback", {"request": "req_1", "feedback": '{"opinion":{"kind":"smell"}}'})
    await kept.add([feedback(Rating(4))])
    with capture_logs() as logs:
        assert [piece.opinion for piece in await everything(kept)] == [Rating(4)]
    assert [entry["event"] for entry in logs] == ["feedback_corrupt"]


async def test_a_lost_store_is_a_store_error(store: Store) -> None:
    """Every method of the store says so."""
    kept = RedisFeedback(store, StoreConfig())
    assert store.embedded is not None
    await store.embedded.stop()
    with pytest.raises(StoreError, match="keep feedback"):
        await kept.add([feedback(Rating(4))])
    with pytest.raises(StoreError, match="reply's feedback"):
        await kept.of_request("acme", "req_1")
    with pytest.raises(StoreError, match="read feedback"):
        await everything(kept)
    with pytest.raises(StoreError, match="tenants with feedback"):
        await kept.tenants()
