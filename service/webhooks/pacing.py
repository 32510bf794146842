"""How much may be sent to whom at this moment, so that one slow receiver holds up nobody else.

A lane (one tenant, one host) has so many deliveries in flight; a host takes so many per second from all tenants
together; a receiver that asks for patience has its lane held. Kept in memory: each node paces what it sends.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta

from service.webhooks.config import WebhooksConfig
from service.webhooks.records import Lane

_MAX_HOSTS = 10_000
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
        self._allowances: dict[str, _Allowance] = {}
        self._held_until: dict[Lane, datetime] = {}

    @property
    def num_in_flight(self) -> int:
        """Deliveries in flight to anybody."""
        return self._in_flight.total()

    def room(self, lane: Lane, now: datetime) -> int:
        """Deliveries that may begin now."""
        if self._held_until.get(lane, now) > now:
            return 0
        self._held_until.pop(lane, None)
        free = self._config.concurrency - self.num_in_flight
        lane_free = self._config.concurrency_per_destination - self._in_flight[lane]
        return max(0, min(free, lane_free, int(self._allowance(lane.authority, now).tokens)))

    def begin(self, lane: Lane, now: datetime) -> None:
        """A delivery begins."""
        self._in_flight[lane] += 1
        self._allowance(lane.authority, now).tokens -= 1

    def end(self, lane: Lane) -> None:
        """A delivery that had begun has ended."""
        self._in_flight[lane] -= 1
        if not self._in_flight[lane]:
            del self._in_flight[lane]

    def hold(self, lane: Lane, now: datetime, seconds: float) -> None:
        """Send nothing on this lane for so long, at most a minute."""
        self._held_until[lane] = now + min(timedelta(seconds=seconds), MAX_HOLD)

    def _allowance(self, authority: str, now: datetime) -> _Allowance:
        rate = self._config.rate_per_destination
        if len(self._allowances) > _MAX_HOSTS:
            self._forget_idle(now)
        allowance = self._allowances.setdefault(authority, _Allowance(float(rate), now))
        gained = max((now - allowance.at).total_seconds(), 0.0) * rate
        allowance.tokens, allowance.at = min(allowance.tokens + gained, float(rate)), now
        return allowance

    def _forget_idle(self, now: datetime) -> None:
        """After a second without a delivery an allowance is full, as a new one is."""
        recent = now - timedelta(seconds=1)
        self._allowances = {host: item for host, item in self._allowances.items() if item.at > recent}
