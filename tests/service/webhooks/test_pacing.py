"""How much is sent to whom at once."""

from datetime import UTC, datetime, timedelta

from service.webhooks.config import WebhooksConfig
from service.webhooks.pacing import DestinationPacing
from service.webhooks.records import Lane

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SLOW, OTHER = Lane("acme", "slow.example.com"), Lane("acme", "b.example.com")
NEIGHBOUR = Lane("globex", SLOW.authority)


def pacing(**settings: int) -> DestinationPacing:
    return DestinationPacing(WebhooksConfig.model_validate(settings))


def test_a_lane_has_so_many_in_flight_and_others_their_own() -> None:
    """Two to one host at once; a full lane takes nothing from another."""
    paced = pacing(concurrency_per_destination=2)
    for _ in range(2):
        paced.begin(SLOW, NOW)
    assert (paced.room(SLOW, NOW), paced.room(OTHER, NOW)) == (0, 2)
    paced.end(SLOW)
    assert paced.room(SLOW, NOW) == 1


def test_all_lanes_together_have_so_many_in_flight() -> None:
    """Three in all: after two on one lane, one is left for the other."""
    paced = pacing(concurrency=3, concurrency_per_destination=2)
    for _ in range(2):
        paced.begin(SLOW, NOW)
    assert paced.room(OTHER, NOW) == 1


def test_a_tenant_has_so_many_in_flight() -> None:
    """Three over all of its lanes; another tenant has its own three."""
    paced = pacing(concurrency_per_tenant=3, concurrency_per_destination=2)
    for _ in range(2):
        paced.begin(SLOW, NOW)
    assert (paced.room(OTHER, NOW), paced.room(NEIGHBOUR, NOW)) == (1, 2)


def test_a_host_takes_so_many_per_second_from_a_tenant() -> None:
    """Five per second; another tenant's five to the same host are its own. A fifth of a second gives one back."""
    paced = pacing(rate_per_destination=5, concurrency_per_destination=100)
    for _ in range(5):
        paced.begin(SLOW, NOW)
        paced.end(SLOW)
    assert (paced.room(SLOW, NOW), paced.room(NEIGHBOUR, NOW), paced.room(OTHER, NOW)) == (0, 5, 5)
    # 0.2 s * 5/s = 1; after a long rest there are 5 again, not more.
    assert paced.room(SLOW, NOW + timedelta(seconds=0.2)) == 1
    assert paced.room(SLOW, NOW + timedelta(hours=1)) == 5


def test_a_held_lane_waits_at_most_a_minute() -> None:
    """One receiver's Retry-After holds its tenant's lane, not another tenant's, and not for a day."""
    paced = pacing()
    paced.hold(SLOW, NOW, 86_400)
    assert paced.room(SLOW, NOW + timedelta(seconds=59)) == 0
    assert paced.room(NEIGHBOUR, NOW) == 4
    assert paced.room(SLOW, NOW + timedelta(seconds=60)) == 4
