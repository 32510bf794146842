"""Where the node may send: URLs by rule, addresses by what they are.

    URL ─► parse: scheme, host, port, no user info ─► resolve ─► every address must pass ─► connect to those addresses

A name is resolved again for each connection, and the connection goes to the very addresses that were checked: an answer
that changes in between (DNS rebinding) changes nothing. A URL is taken apart once, here, and sent as it is put together
again, so that no other parser can read it differently.
"""

import asyncio
import re
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

import structlog

from agent.errors import DestinationRefused
from service.webhooks.addresses import Address, Network, is_public
from service.webhooks.config import WebhooksConfig

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

MAX_URL_CHARS = 2048
MAX_ADDRESSES = 16
"""Addresses of one name that are looked at; a name with more is refused."""
DEFAULT_PORTS = {"https": 443, "http": 80}

_PLAIN = re.compile(r"[!-~]+")
_FORBIDDEN = re.compile(r"[\\\"<>^`{|}]")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
_DNS_THREADS = 16


@dataclass(frozen=True, slots=True)
class Destination:
    """An accepted URL in parts."""

    scheme: str
    host: str
    """A lower-case name, or an address without brackets."""
    port: int
    target: str
    """Path and query."""

    @property
    def authority(self) -> str:
        """Host and, unless it is the scheme's own, port; as in the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL in its one spelling."""
        return f"{self.scheme}://{self.authority}{self.target}"


class Resolver(Protocol):
    """Looks names up."""

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """The addresses of a name, at least one.

        Raises:
            OSError: the name has none, or could not be looked up.
        """
        ...


class SystemResolver:
    """The operating system's resolver, in threads of its own: slow name servers hold up nothing else."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_DNS_THREADS, thread_name_prefix="webhook-dns")

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """See Resolver."""
        found = await asyncio.get_running_loop().run_in_executor(self._threads, _addresses_of, host, port)
        return tuple(dict.fromkeys(found))

    def close(self) -> None:
        """Let the threads go; a look-up that still hangs ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _addresses_of(host: str, port: int) -> list[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


@dataclass(frozen=True, slots=True)
class DestinationRules:
    """What an operator allows."""

    allow_http: bool = False
    ports: frozenset[int] = frozenset({443, 8443})
    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, config: WebhooksConfig) -> "DestinationRules":
        """The rules of a configuration."""
        return cls(
            allow_http=config.allow_http,
            ports=frozenset(config.allowed_ports),
            networks=tuple(ip_network(network) for network in config.allowed_networks),
        )

    def parse(self, url: str, field: str = "url") -> Destination:
        """The parts of a URL that keeps every rule which needs no look-up.

        Raises:
            DestinationRefused: it breaks one. The message does not repeat the URL, which may hold a token.
        """
        try:
            return self._parse(url)
        except ValueError as error:
            raise DestinationRefused(field, str(error)) from error

    def admits(self, address: Address) -> bool:
        """True for a public address, and for one in a network that the operator allows."""
        return is_public(address) or any(address in network for network in self.networks)

    def _parse(self, url: str) -> Destination:
        if len(url) > MAX_URL_CHARS:
            raise ValueError(f"must have at most {MAX_URL_CHARS} characters, got {len(url)}")
        if not _PLAIN.fullmatch(url) or _FORBIDDEN.search(url):
            raise ValueError(
                "must be a URL of plain ASCII characters without spaces; write international host names as xn--..., and"
                " percent-encode the rest"
            )
        scheme = self._scheme(url)
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ValueError("must be a URL with a valid host and port, got something else") from error
        if "@" in parts.netloc:
            raise ValueError("must not hold a user name or password")
        if "#" in url:
            raise ValueError("must not have a fragment (#...)")
        host = _host(parts)
        destination = Destination(scheme, host, self._port(scheme, port, parts.netloc), _target(parts))
        if (address := literal(host)) is not None and not self.admits(address):
            raise ValueError("must lead to a public address, got a private or reserved one")
        return destination

    def _scheme(self, url: str) -> str:
        schemes = ("https", "http") if self.allow_http else ("https",)
        for scheme in schemes:
            prefix = f"{scheme}://"
            if url[: len(prefix)].lower() == prefix and url[len(prefix) : len(prefix) + 1] not in ("", "/", "?"):
                return scheme
        raise ValueError(f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)} and a host")

    def _port(self, scheme: str, port: int | None, netloc: str) -> int:
        if port is None and netloc.endswith(":"):
            raise ValueError("must not end its host with ':'")
        chosen = DEFAULT_PORTS[scheme] if port is None else port
        allowed = self.ports | ({80} if self.allow_http else set())
        if chosen not in allowed:
            raise ValueError(f"must use one of the ports {', '.join(map(str, sorted(allowed)))}, got {chosen}")
        return chosen


def literal(host: str) -> Address | None:
    """The address that a host spells out; None for a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def _host(parts: SplitResult) -> str:
    host = (parts.hostname or "").lower()
    if parts.netloc.startswith("["):
        return str(_ipv6(host))
    if ":" in host or not host:
        raise ValueError("must have a host")
    if host.endswith("."):
        raise ValueError("must not end its host with '.'")
    labels = host.split(".")
    if _NUMERIC.fullmatch(labels[-1]):
        return str(_ipv4(host))
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("must have a valid host name")
    return host


def _ipv4(host: str) -> IPv4Address:
    try:
        return IPv4Address(host)
    except ValueError as error:
        raise ValueError("must write an IPv4 address as four decimal numbers, got another form") from error


def _ipv6(host: str) -> IPv6Address:
    address = literal(host)
    if not isinstance(address, IPv6Address) or address.scope_id is not None:
        raise ValueError("must write an IPv6 address without a zone, got something else in brackets")
    return address


def _target(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


@dataclass(frozen=True, slots=True)
class Destinations:
    """Rules and a resolver: says whether a URL may be called, and under which addresses."""

    rules: DestinationRules
    resolver: Resolver
    look_up_s: float = 2.0
    """Longest time that a caller waits for a name to be looked up."""

    async def check(self, url: str, field: str = "url") -> Destination:
        """The destination of a URL that may be called.

        A name that cannot be looked up at this moment is no mistake of the caller, whom a refusal would keep from
        trying again, so it passes: each connection looks its name up once more, and checks what it finds.

        Raises:
            DestinationRefused: it breaks a rule, its name does not exist, or leads to an address that is not public.
        """
        destination = self.rules.parse(url, field)
        try:
            async with asyncio.timeout(self.look_up_s):
                await self.addresses(destination.host, destination.port, field)
        except OSError as error:  # TimeoutError is one
            if isinstance(error, TimeoutError) or error.errno == socket.EAI_AGAIN:
                log.warning("destination_not_looked_up", field=field, reason=type(error).__name__)
            else:
                raise DestinationRefused(field, f"must name a host that resolves, got {destination.host}") from error
        return destination

    async def addresses(self, host: str, port: int, field: str = "url") -> tuple[str, ...]:
        """The addresses to connect to: what the name resolves to at this moment, all of it checked.

        Raises:
            DestinationRefused: one of them may not be called.
            OSError: the name cannot be resolved.
        """
        found = [host] if literal(host) is not None else await self.resolver.resolve(host, port)
        if not found:
            raise OSError(f"{host} has no address")
        addresses = [address for text in found if (address := literal(text)) is not None]
        known = len(found) <= MAX_ADDRESSES and len(addresses) == len(found)
        if not known or not all(map(self.rules.admits, addresses)):
            raise DestinationRefused(field, f"must lead to public addresses only, and {host} does not")
        return tuple(map(str, addresses))


@dataclass
class FakeResolver:
    """Answers from a table: the first look-up of a name gets its first answer, and so on; the last one stays."""

    answers: Mapping[str, Sequence[Sequence[str]]]
    asked: list[str] = field(default_factory=list)

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """See Resolver."""
        self.asked.append(host)
        if host not in self.answers:
            raise OSError(f"{host} is not known")
        answers = self.answers[host]
        return answers[min(self.asked.count(host), len(answers)) - 1]
