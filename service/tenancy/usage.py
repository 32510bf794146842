"""What was used in a day, by tenant and key: counted in memory, brought together in the store every second.

    t:<tenant>:usage:<yyyy-mm-dd>     hash: `requests`, `tokens`, `<key id> requests`, `<key id> tokens`

A request asks memory alone. What other processes used is known a second later, and what this one used in its last
second is lost when it is killed: a daily quota is exact to a second of traffic.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Protocol, cast

import structlog

from agent.errors import StoreError
from service.store import Store, store_errors

log = structlog.get_logger(__name__)

_FLUSH_S = 1.0
_KEPT = timedelta(days=35)


class UsageStore(Protocol):
    """Where days are counted. Raises StoreError."""

    async def add(self, tenant: str, day: date, units: Mapping[str, int]) -> dict[str, int]:
        """Add units to a tenant's day; returns the whole day, by name."""
        ...


class RedisUsageStore:
    """``UsageStore`` on the node's store. A day is kept for five weeks."""

    def __init__(self, store: Store) -> None:
        self._redis = store.redis

    async def add(self, tenant: str, day: date, units: Mapping[str, int]) -> dict[str, int]:
        """See UsageStore.add."""
        key = f"t:{tenant}:usage:{day.isoformat()}"
        with store_errors("count what was used"):
            async with self._redis.pipeline(transaction=True) as transaction:
                for name, number in units.items():
                    transaction.hincrby(key, name, number)
                transaction.expire(key, _KEPT)
                transaction.hgetall(key)
                *_, totals = await transaction.execute()
        return {name: int(number) for name, number in cast("dict[str, str]", totals).items()}


class MemoryUsageStore:
    """``UsageStore`` in memory; ``failure`` is raised instead of an answer while it is set."""

    def __init__(self) -> None:
        self.days: dict[tuple[str, date], Counter[str]] = {}
        self.failure: StoreError | None = None

    async def add(self, tenant: str, day: date, units: Mapping[str, int]) -> dict[str, int]:
        """See UsageStore.add."""
        if self.failure is not None:
            raise self.failure
        totals = self.days.setdefault((tenant, day), Counter())
        totals.update(units)
        return dict(totals)


class DailyUsage:
    """Today's units, by tenant and name. A day begins at 00:00 UTC."""

    def __init__(self, store: UsageStore, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._store, self._now = store, now
        self._day = now().date()
        self._totals: dict[str, Counter[str]] = {}
        self._unsent: dict[tuple[str, date], Counter[str]] = {}
        self._counted = asyncio.Event()

    def used(self, tenant: str, name: str) -> int:
        """Units of today, as far as this process knows."""
        self._turn()
        totals = self._totals.get(tenant)
        return 0 if totals is None else totals[name]

    def add(self, tenant: str, name: str, units: int) -> None:
        """Count units."""
        self._turn()
        self._totals.setdefault(tenant, Counter())[name] += units
        self._unsent.setdefault((tenant, self._day), Counter())[name] += units
        self._counted.set()

    def left_s(self) -> float:
        """Seconds until the day ends."""
        now = self._now()
        midnight = datetime.combine(now.date() + timedelta(days=1), time(), UTC)
        return (midnight - now).total_seconds()

    async def read(self, tenants: Iterable[str]) -> None:
        """Learn what these tenants have used today. Raises StoreError."""
        self._turn()
        for tenant in tenants:
            await self._exchange(tenant, self._day, Counter())

    async def flush(self) -> None:
        """Give the store what was counted, and learn the totals. Raises StoreError; nothing is lost then."""
        self._turn()
        for tenant, day in list(self._unsent):
            units = self._unsent.pop((tenant, day))
            try:
                await self._exchange(tenant, day, units)
            except StoreError:
                self._unsent.setdefault((tenant, day), Counter()).update(units)
                raise

    async def run(self) -> None:
        """Flush every second in which something was counted, forever."""
        while True:
            await self._counted.wait()
            await asyncio.sleep(_FLUSH_S)
            self._counted.clear()
            try:
                await self.flush()
            except StoreError as error:
                self._counted.set()
                log.warning("usage_not_stored", reason=str(error))

    async def _exchange(self, tenant: str, day: date, units: Counter[str]) -> None:
        totals = Counter(await self._store.add(tenant, day, units))
        if day == self._day:
            totals.update(self._unsent.get((tenant, day), Counter()))
            self._totals[tenant] = totals

    def _turn(self) -> None:
        """Begin a new day when the old one is over. What is unsent of the old one is still sent for it."""
        today = self._now().date()
        if today != self._day:
            self._day = today
            self._totals = {}
