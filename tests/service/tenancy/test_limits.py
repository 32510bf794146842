"""Limits of tenants and keys."""

from datetime import UTC, date, datetime, timedelta

import pytest

from agent.config import LanguageSettings, LimitSettings, TenantSettings
from agent.errors import ConcurrencyLimited, LimitReached, QuotaExhausted, RateLimited, StoreError
from service.store import Store
from service.tenancy.caller import Caller
from service.tenancy.limits import Limiter
from service.tenancy.usage import DailyUsage, MemoryUsageStore, RedisUsageStore

EVENING = datetime(2026, 3, 1, 23, 59, 50, tzinfo=UTC)


class Clock:
    """Both clocks: seconds since the start, and the time of day."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s

    def now(self) -> datetime:
        return EVENING + timedelta(seconds=self.s)


class Gate:
    """A limiter with its clock and its store of days."""

    def __init__(self, store: MemoryUsageStore | None = None) -> None:
        self.clock = Clock()
        self.store = store or MemoryUsageStore()
        self.usage = DailyUsage(self.store, now=self.clock.now)
        self.limiter = Limiter(self.usage, clock=self.clock)


def caller(
    limits: LimitSettings | None = None, key_limits: LimitSettings | None = None, key_id: str = "key_1"
) -> Caller:
    tenant = TenantSettings(id="acme", languages={"de": LanguageSettings()}, limits=limits or LimitSettings())
    return Caller(tenant, key_id, limits=key_limits or LimitSettings())


def test_a_minutes_requests_may_come_at_once_and_then_one_by_one() -> None:
    """3 a minute: three enter, the fourth waits 60 / 3 = 20 s, and then exactly one more enters."""
    gate = Gate()
    who = caller(LimitSettings(requests_per_minute=3))
    for _ in range(3):
        gate.limiter.enter(who, generates=False)
    with pytest.raises(RateLimited) as caught:
        gate.limiter.enter(who, generates=False)
    assert caught.value.limit == "requests_per_minute"
    assert caught.value.retry_after_s == pytest.approx(20)
    gate.clock.s = 20
    gate.limiter.enter(who, generates=False)
    with pytest.raises(RateLimited):
        gate.limiter.enter(who, generates=False)


def test_a_keys_limit_holds_the_key_and_the_tenants_holds_all_keys() -> None:
    """Key 1 may once, the tenant twice: key 1's second is refused and uses nothing of the tenant's."""
    gate = Gate()
    tenant = LimitSettings(requests_per_minute=2)
    one = caller(tenant, LimitSettings(requests_per_minute=1), "key_1")
    two = caller(tenant, key_id="key_2")
    gate.limiter.enter(one, generates=False)
    with pytest.raises(RateLimited) as caught:
        gate.limiter.enter(one, generates=False)
    assert caught.value.limit == "key.requests_per_minute"
    gate.limiter.enter(two, generates=False)
    with pytest.raises(RateLimited) as caught:
        gate.limiter.enter(two, generates=False)
    assert caught.value.limit == "requests_per_minute"


def test_tokens_are_paid_after_the_reply() -> None:
    """60 a minute are 1 a second: after 90 the bucket is at -30, and a token is there again after 31 s."""
    gate = Gate()
    who = caller(LimitSettings(tokens_per_minute=60))
    gate.limiter.enter(who, generates=True)
    gate.limiter.charge("acme", who, 90)
    with pytest.raises(RateLimited) as caught:
        gate.limiter.enter(who, generates=True)
    assert caught.value.limit == "tokens_per_minute"
    assert caught.value.retry_after_s == pytest.approx(31)
    gate.limiter.enter(who, generates=False)
    gate.clock.s = 31
    gate.limiter.enter(who, generates=True)


def test_a_request_runs_until_it_leaves() -> None:
    """Two at one time; leaving twice frees one place, not two."""
    gate = Gate()
    who = caller(LimitSettings(concurrent_requests=2))
    first = gate.limiter.enter(who, generates=True)
    gate.limiter.enter(who, generates=True)
    with pytest.raises(ConcurrencyLimited, match="concurrent_requests is 2"):
        gate.limiter.enter(who, generates=True)
    first.leave()
    first.leave()
    gate.limiter.enter(who, generates=True)
    with pytest.raises(ConcurrencyLimited):
        gate.limiter.enter(who, generates=True)


def test_a_day_is_used_up_until_midnight() -> None:
    """At 23:59:50 the second request of one a day waits 10 s; the new day begins with nothing used."""
    gate = Gate()
    who = caller(LimitSettings(requests_per_day=1))
    gate.limiter.enter(who, generates=True)
    with pytest.raises(QuotaExhausted) as caught:
        gate.limiter.enter(who, generates=True)
    assert (caught.value.limit, caught.value.retry_after_s) == ("requests_per_day", 10)
    gate.clock.s = 10
    gate.limiter.enter(who, generates=True)


async def test_days_of_two_processes_come_together_in_the_store() -> None:
    """Each used 6 of 10 tokens: each alone would let more in, and knows better after both have flushed."""
    store = MemoryUsageStore()
    one, two = Gate(store), Gate(store)
    who = caller(LimitSettings(tokens_per_day=10))
    for gate in (one, two):
        gate.limiter.enter(who, generates=True)
        gate.limiter.charge("acme", who, 6)
    await one.usage.flush()
    await two.usage.flush()
    one.limiter.charge("acme", None, 0)
    await one.usage.flush()
    for gate in (one, two):
        assert gate.limiter.used_today("acme") == (2, 12)
        with pytest.raises(QuotaExhausted):
            gate.limiter.enter(who, generates=True)
    assert one.limiter.used_today("acme", "key_1") == (2, 12)


async def test_what_the_store_did_not_take_is_sent_again() -> None:
    """A failed flush loses nothing and counts nothing twice."""
    gate = Gate()
    gate.limiter.charge("acme", None, 5)
    gate.store.failure = StoreError("down")
    with pytest.raises(StoreError):
        await gate.usage.flush()
    gate.limiter.charge("acme", None, 2)
    gate.store.failure = None
    await gate.usage.flush()
    await gate.usage.flush()
    assert gate.store.days["acme", date(2026, 3, 1)] == {"tokens": 7}


async def test_a_new_process_learns_the_day_before_the_first_request(any_store: Store) -> None:
    """What is in the store counts from the start."""
    used = DailyUsage(RedisUsageStore(any_store))
    used.add("acme", "tokens", 9)
    await used.flush()
    fresh = DailyUsage(RedisUsageStore(any_store))
    assert fresh.used("acme", "tokens") == 0
    await fresh.read(["acme", "zeta"])
    assert (fresh.used("acme", "tokens"), fresh.used("zeta", "tokens")) == (9, 0)


def test_headers_tell_policies_and_what_is_left() -> None:
    """4 a minute, 1 used: 3 are left and the bucket is full in 60 / 4 = 15 s; 10 s are left of the day."""
    gate = Gate()
    who = caller(LimitSettings(requests_per_minute=4, requests_per_day=9), LimitSettings(tokens_per_minute=600))
    gate.limiter.enter(who, generates=True)
    assert gate.limiter.headers(who) == [
        (
            b"ratelimit-policy",
            b'"requests_per_minute";q=4;w=60, "requests_per_day";q=9;w=86400, "key.tokens_per_minute";q=600;w=60',
        ),
        (
            b"ratelimit",
            b'"requests_per_minute";r=3;t=15, "requests_per_day";r=8;t=10, "key.tokens_per_minute";r=600;t=0',
        ),
    ]
    assert gate.limiter.headers(caller()) == []


def test_a_changed_limit_is_in_force_at_once() -> None:
    """From 2 to 4 a minute after 2: two more enter. Without a limit everything does."""
    gate = Gate()
    for _ in range(2):
        gate.limiter.enter(caller(LimitSettings(requests_per_minute=2)), generates=False)
    raised = caller(LimitSettings(requests_per_minute=4))
    for _ in range(2):
        gate.limiter.enter(raised, generates=False)
    with pytest.raises(LimitReached):
        gate.limiter.enter(raised, generates=False)
    for _ in range(10):
        gate.limiter.enter(caller(), generates=False)
