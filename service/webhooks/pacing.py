"""How much may be sent to whom at this moment, so that neither a slow receiver nor a busy tenant holds up another.

A lane (one tenant, one host) has so many deliveries in flight and so many per second; a tenant has so many in flight; a
receiver that asks for patience has its lane held. Nothing is shared between tenants but the total. Kept in memory: each
node paces what it sends.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta

from service.webhooks.config import WebhooksConfig
from service.webhooks.records import Lane

_MAX_LANES = 10_000
MAX_HOLD = timedelta(seconds=60)
"""Longest time that one answer holds a whole lane; its own delivery waits as long as it asked."""


@dataclass(slots=True)
class _Allowance:
    """A token bucket of one second's worth."""

    tokens: float
    at: datetime


class DestinationPacing:
    """Counts what is in flight."""

    def __init__(self, config: WebhooksConfig) -> None:
        self._config = config
        self._in_flight: Counter[Lane] = Counter()
        self._of_tenant: Counter[str] = Counter()
        self._allowances: dict[Lane, _Allowance] = {}
        self._held_until: dict[Lane, datetime] = {}

    @property
    def num_in_flight(self) -> int:
        """Deliveries in flight to anybody."""
        return self._of_tenant.total()

    def room(self, lane: Lane, now: datetime) -> int:
        """Deliveries that may begin now."""
        if self._held_until.get(lane, now) > now:
            return 0
        self._held_until.pop(lane, None)
        free = (
            self._config.concurrency - self.num_in_flight,
            self._config.concurrency_per_tenant - self._of_tenant[lane.tenant],
            self._config.concurrency_per_destination - self._in_flight[lane],
            int(self._allowance(lane, now).tokens),
        )
        return max(0, min(free))

    def begin(self, lane: Lane, now: datetime) -> None:
        """A delivery begins."""
        self._in_flight[lane] += 1
        self._of_tenant[lane.tenant] += 1
        self._allowance(lane, now).tokens -= 1

    def end(self, lane: Lane) -> None:
        """A delivery that had begun has ended."""
        self._in_flight[lane] -= 1
        self._of_tenant[lane.tenant] -= 1
        self._in_flight, self._of_tenant = +self._in_flight, +self._of_tenant

    def hold(self, lane: Lane, now: datetime, seconds: float) -> None:
        """Send nothing on this lane for so long, at most a minute."""
        self._held_until[lane] = now + min(timedelta(seconds=seconds), MAX_HOLD)

    def _allowance(self, lane: Lane, now: datetime) -> _Allowance:
        rate = self._config.rate_per_destination
        if len(self._allowances) > _MAX_LANES:
            self._forget_idle(now)
        allowance = self._allowances.setdefault(lane, _Allowance(float(rate), now))
        gained = max((now - allowance.at).total_seconds(), 0.0) * rate
        allowance.tokens, allowance.at = min(allowance.tokens + gained, float(rate)), now
        return allowance

    def _forget_idle(self, now: datetime) -> None:
        """After a second without a delivery an allowance is full, as a new one is."""
        recent = now - timedelta(seconds=1)
        self._allowances = {lane: item for lane, item in self._allowances.items() if item.at > recent}
