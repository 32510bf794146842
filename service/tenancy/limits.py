"""Limits of tenants and keys: what a request needs to enter, and what it uses.

    enter ─► rates, concurrency, day: of the tenant and of the key; all must agree, or nothing is used
    charge ─► tokens, when a reply is done: a minute's bucket may go below zero, and then the next request waits

Everything is in memory (one front process) but the day's counts, which service.tenancy.usage shares through the store.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from agent.config import UNLIMITED, LimitSettings
from agent.errors import ConcurrencyLimited, QuotaExhausted, RateLimited
from service.tenancy.caller import Caller
from service.tenancy.rate import WINDOW_S, Rate
from service.tenancy.usage import DailyUsage, MemoryUsageStore

_DAY_S = 86_400
_CONCURRENCY_RETRY_S = 1.0


@dataclass(slots=True)
class _Meter:
    """What one tenant or key uses right now."""

    tenant: str
    prefix: str
    """Of the limits' names: empty for the tenant's, `key.` for a key's."""
    unit_prefix: str
    """Of the names under which a day is counted."""
    limits: LimitSettings = UNLIMITED
    requests: Rate | None = None
    tokens: Rate | None = None
    num_running: int = 0

    def adopt(self, limits: LimitSettings, now_s: float) -> None:
        """Take the limits as they are by now."""
        if limits is not self.limits:
            self.limits = limits
            self.requests = _adopted(self.requests, limits.requests_per_minute, now_s)
            self.tokens = _adopted(self.tokens, limits.tokens_per_minute, now_s)


def _adopted(rate: Rate | None, quota: int | None, now_s: float) -> Rate | None:
    if quota is None:
        return None
    if rate is None:
        return Rate(quota, now_s)
    rate.adjust(quota)
    return rate


@dataclass(slots=True)
class Passage:
    """A request that was let in. Call ``leave`` once it is answered; twice is the same as once."""

    meters: tuple[_Meter, ...] = ()
    _open: bool = field(default=True)

    def pass_on(self) -> "Passage":
        """The same passage for another holder; ``leave`` of this one changes nothing from now on."""
        passed = Passage(self.meters, self._open)
        self._open = False
        return passed

    def leave(self) -> None:
        """The request no longer counts as running."""
        if self._open:
            self._open = False
            for meter in self.meters:
                meter.num_running -= 1


class Limiter:
    """Counts and refuses. Every call is made on the event loop and returns at once."""

    def __init__(self, usage: DailyUsage | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._usage = usage if usage is not None else DailyUsage(MemoryUsageStore())
        self._clock = clock
        self._meters: dict[tuple[str, str], _Meter] = {}

    def enter(self, caller: Caller, *, generates: bool) -> Passage:
        """Let a request in. Those that do not generate are held to the rate of requests alone.

        Raises:
            RateLimited, ConcurrencyLimited, QuotaExhausted: a limit is reached; nothing was counted.
        """
        now_s = self._clock()
        meters = self._meters_of(caller, now_s)
        for meter in meters:
            _require_rate(meter, "requests", now_s)
            if generates:
                _require_rate(meter, "tokens", now_s)
                _require_room(meter)
                self._require_day(meter)
        for meter in meters:
            if meter.requests is not None:
                meter.requests.use(1)
            if generates:
                meter.num_running += 1
                self._usage.add(meter.tenant, f"{meter.unit_prefix}requests", 1)
        return Passage(meters if generates else ())

    def repeated(self, passage: Passage) -> None:
        """A request that was let in turned out to be the repetition of another one: the day counts the two as one."""
        for meter in passage.meters:
            name = f"{meter.unit_prefix}requests"
            if self._usage.used(meter.tenant, name) > 0:  # a new day may have begun since
                self._usage.add(meter.tenant, name, -1)

    def occupy(self, tenant: str, key_id: str | None) -> Passage:
        """Count work that was accepted earlier among what runs, whatever the limits say."""
        meters = tuple(self._meter(tenant, name) for name in dict.fromkeys(("", key_id or "")))
        for meter in meters:
            meter.num_running += 1
        return Passage(meters)

    def charge(self, tenant: str, caller: Caller | None, num_tokens: int) -> None:
        """Count tokens of a reply; ``caller`` is None for work that outlived its request."""
        key_id = caller.key_id if caller is not None and caller.tenant.id == tenant else ""
        for name in dict.fromkeys(("", key_id)):
            meter = self._meters.get((tenant, name))
            if meter is not None and meter.tokens is not None:
                meter.tokens.use(num_tokens)
            self._usage.add(tenant, f"{name} tokens" if name else "tokens", num_tokens)

    def headers(self, caller: Caller) -> list[tuple[bytes, bytes]]:
        """`RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10); none without limits."""
        if caller.tenant.limits is UNLIMITED and caller.limits is UNLIMITED:
            return []
        now_s = self._clock()
        rows = [row for meter in self._meters_of(caller, now_s) for row in self._rows(meter, now_s)]
        if not rows:
            return []
        policies = ", ".join(f'"{name}";q={quota};w={window_s}' for name, quota, window_s, _, _ in rows)
        state = ", ".join(f'"{name}";r={remaining};t={reset_s}' for name, _, _, remaining, reset_s in rows)
        return [(b"ratelimit-policy", policies.encode()), (b"ratelimit", state.encode())]

    def used_today(self, tenant: str, key_id: str | None = None) -> tuple[int, int]:
        """Requests and tokens of a tenant, or of one of its keys, since 00:00 UTC."""
        prefix = f"{key_id} " if key_id is not None else ""
        return self._usage.used(tenant, f"{prefix}requests"), self._usage.used(tenant, f"{prefix}tokens")

    def _rows(self, meter: _Meter, now_s: float) -> Iterator[tuple[str, int, int, int, int]]:
        """Name, quota, window, remaining and seconds to the reset of each limit that has a window."""
        for name, rate in (("requests", meter.requests), ("tokens", meter.tokens)):
            if rate is not None:
                remaining, reset_s = rate.remaining(now_s), rate.full_in_s(now_s)
                yield f"{meter.prefix}{name}_per_minute", rate.quota, WINDOW_S, remaining, reset_s
        for name, quota in _daily(meter.limits):
            used = self._usage.used(meter.tenant, f"{meter.unit_prefix}{name}")
            yield f"{meter.prefix}{name}_per_day", quota, _DAY_S, max(quota - used, 0), int(self._usage.left_s())

    def _meters_of(self, caller: Caller, now_s: float) -> tuple[_Meter, _Meter]:
        tenant = self._meter(caller.tenant.id, "")
        key = self._meter(caller.tenant.id, caller.key_id)
        tenant.adopt(caller.tenant.limits, now_s)
        key.adopt(caller.limits, now_s)
        return tenant, key

    def _meter(self, tenant: str, key_id: str) -> _Meter:
        meter = self._meters.get((tenant, key_id))
        if meter is None:
            meter = _Meter(tenant, "key." if key_id else "", f"{key_id} " if key_id else "")
            self._meters[tenant, key_id] = meter
        return meter

    def _require_day(self, meter: _Meter) -> None:
        for name, quota in _daily(meter.limits):
            if self._usage.used(meter.tenant, f"{meter.unit_prefix}{name}") >= quota:
                raise QuotaExhausted(
                    f"{meter.prefix}{name}_per_day is {quota}, and they are used up until 00:00 UTC",
                    limit=f"{meter.prefix}{name}_per_day",
                    retry_after_s=self._usage.left_s(),
                )


def _daily(limits: LimitSettings) -> Iterator[tuple[str, int]]:
    if limits.requests_per_day is not None:
        yield "requests", limits.requests_per_day
    if limits.tokens_per_day is not None:
        yield "tokens", limits.tokens_per_day


def _require_rate(meter: _Meter, name: str, now_s: float) -> None:
    rate = meter.requests if name == "requests" else meter.tokens
    if rate is None:
        return
    wait_s = rate.wait_s(now_s)
    if wait_s > 0:
        limit = f"{meter.prefix}{name}_per_minute"
        raise RateLimited(f"{limit} is {rate.quota}, and they are used up", limit=limit, retry_after_s=wait_s)


def _require_room(meter: _Meter) -> None:
    most = meter.limits.concurrent_requests
    if most is not None and meter.num_running >= most:
        limit = f"{meter.prefix}concurrent_requests"
        raise ConcurrencyLimited(
            f"{limit} is {most}, and so many are running", limit=limit, retry_after_s=_CONCURRENCY_RETRY_S
        )
