"""Webhooks on fakes: a clock that stands still, records in memory, a sender that keeps what it is sent."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from service.webhooks.config import WebhooksConfig
from service.webhooks.couriers import CourierParts, Couriers
from service.webhooks.deliveries import Deliveries
from service.webhooks.destinations import DestinationRules, Destinations, FakeResolver
from service.webhooks.endpoints import Endpoints
from service.webhooks.fakes import FakeClock, FakeEndpoints, FakeQueue
from service.webhooks.ports import DeliveryQueue, EndpointRecords
from service.webhooks.records import Delivery
from service.webhooks.sender import FakeSender, Outcome, Sender, Sent

NAMES: Mapping[str, Sequence[Sequence[str]]] = {
    f"{name}.example.com": [["93.184.216.34"]] for name in ("a", "b", "hooks")
}


@dataclass
class Rig:
    """Everything between an event and a receiver; another store or sender can be put in before first use."""

    config: WebhooksConfig = field(default_factory=WebhooksConfig)
    clock: FakeClock = field(default_factory=FakeClock)
    records: EndpointRecords = field(default_factory=FakeEndpoints)
    queue: DeliveryQueue = field(default_factory=FakeQueue)
    sender: Sender = field(default_factory=FakeSender)
    names: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=lambda: NAMES)
    outcomes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.destinations = Destinations(DestinationRules.of(self.config), FakeResolver(self.names))
        self.endpoints = Endpoints(self.records, self.destinations, self.config, self.clock)
        self.deliveries = Deliveries(self.queue, self.records, self.endpoints, self.config, self.clock)
        self.couriers = self.new_couriers()

    def new_couriers(self) -> Couriers:
        """Couriers as another process, or this one after a restart, has them."""
        parts = CourierParts(self.queue, self.records, self.deliveries, self.destinations, self.sender, self.config)
        return Couriers(parts, clock=self.clock, rng=random.Random(7), on_attempt=self.outcomes.append)

    @property
    def sent(self) -> list[Sent]:
        """What the fake sender was given."""
        assert isinstance(self.sender, FakeSender)
        return self.sender.sent

    def answer(self, *outcomes: Outcome) -> None:
        """How the next sends of the fake sender end."""
        assert isinstance(self.sender, FakeSender)
        self.sender.outcomes.extend(outcomes)

    async def turn(self) -> int:
        """One turn of the couriers, to its end."""
        num_begun = await self.couriers.turn()
        await self.couriers.idle()
        return num_begun

    async def add_endpoint(self, name: str = "a", *event_types: str, tenant: str = "acme") -> str:
        """The id of a new endpoint at https://<name>.example.com/."""
        endpoint = await self.endpoints.create(tenant, f"https://{name}.example.com/", event_types, "")
        return endpoint.id

    async def delivery(self, delivery_id: str, tenant: str = "acme") -> Delivery:
        """A delivery as the log has it."""
        return await self.deliveries.get(tenant, delivery_id)
