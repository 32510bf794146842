"""Section `[webhooks]`: where the node may send, how fast, and what it keeps."""

from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from agent.config import Section


def _network(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError as error:
        raise PydanticCustomError("network", "must be a network such as 10.1.0.0/16 or fd00::/8") from error


class WebhooksConfig(Section):
    """Section `[webhooks]`."""

    allow_http: bool = False
    """Also send to `http` URLs, in the clear. For development and intranets."""
    allowed_ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = (443, 8443)
    """Ports that a URL may name; with `allow_http` also 80."""
    allowed_networks: tuple[Annotated[str, AfterValidator(_network)], ...] = ()
    """Networks that are not public and may be sent to all the same, such as `10.1.0.0/16`."""
    callback_hosts: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Tenant to the hosts that its callback URLs may name (`hooks.example.com`, `*.example.com`); any for others."""
    public_url: str | None = None
    """URL under which callers reach this node; events that are too large link to it. Unset makes such links paths."""
    timeout_s: Annotated[float, Field(gt=0, le=30)] = 15.0
    """How long a receiver may take to answer."""
    concurrency: Annotated[int, Field(ge=1)] = 128
    """Deliveries in flight at once."""
    concurrency_per_tenant: Annotated[int, Field(ge=1)] = 32
    """Deliveries in flight at once from one tenant."""
    concurrency_per_destination: Annotated[int, Field(ge=1)] = 4
    """Deliveries in flight at once from one tenant to one host."""
    rate_per_destination: Annotated[int, Field(ge=1)] = 30
    """Deliveries per second from one tenant to one host."""
    rotation_overlap_s: Annotated[float, Field(ge=0)] = 86_400.0
    """How long the old secret still signs after a rotation."""
    log_retention_s: Annotated[float, Field(ge=432_000)] = 604_800.0
    """How long deliveries are kept, from their last try; a delivery is tried for about 75 hours."""
    max_endpoints: Annotated[int, Field(ge=1)] = 50
    """Endpoints, and inbound hooks, that a tenant may have."""
