"""Section `[webhooks]`: where the node may send, how fast, and what it keeps."""

import re
from ipaddress import ip_address, ip_network
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from agent.config import Section


def _network(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError as error:
        raise PydanticCustomError("network", "must be a network such as 10.1.0.0/16 or fd00::/8") from error


def _host(text: str) -> str:
    """A host, or all below one. Whatever else stands there would match no callback, or every one (``*.``)."""
    name = text.removeprefix("*.")
    if re.fullmatch(r"[^\s/:?#@*]+", name) or _is_address(name):
        return text
    raise PydanticCustomError("host", "must be a host such as hooks.example.com or *.example.com")


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _url(text: str) -> str:
    try:
        url = urlsplit(text)
    except ValueError:
        url = urlsplit("")
    if url.scheme not in ("http", "https") or not url.hostname:
        raise PydanticCustomError("url", "must be a URL such as https://coloq.example.com")
    return text


def _some(hosts: tuple[str, ...]) -> tuple[str, ...]:
    """An empty list would read as none, and mean any."""
    if not hosts:
        raise PydanticCustomError("no_host", "must have at least 1 entry")
    return hosts


Hosts = Annotated[tuple[Annotated[str, AfterValidator(_host)], ...], AfterValidator(_some)]
"""Hosts that URLs may name."""


class WebhooksConfig(Section):
    """Section `[webhooks]`."""

    allow_http: bool = False
    """Also send to `http` URLs, in the clear. For development and intranets."""
    allowed_ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = (443, 8443)
    """Ports that a URL may name; with `allow_http` also 80."""
    allowed_networks: tuple[Annotated[str, AfterValidator(_network)], ...] = ()
    """Networks that are not public and may be sent to all the same, such as `10.1.0.0/16`."""
    callback_hosts: dict[str, Hosts] = Field(default_factory=dict)
    """Tenant to the hosts that its callback URLs may name (`hooks.example.com`, `*.example.com`); any for others."""
    public_url: Annotated[str, AfterValidator(_url)] | None = None
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
