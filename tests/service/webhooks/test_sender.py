"""What really happens on the wire: receivers on loopback, over HTTP and TLS."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trustme

from service.webhooks.config import WebhooksConfig
from service.webhooks.destinations import DestinationRules, Destinations, FakeResolver, Resolver
from service.webhooks.sender import HttpSender, Outcome, open_sender
from tests.service.webhooks.receiver import Receiver, receiving

HEADERS = {"webhook-id": "msg_1"}


@asynccontextmanager
async def sending(
    port: int, resolver: Resolver | None = None, *, loopback: bool = True, timeout_s: float = 2.0
) -> AsyncIterator[tuple[HttpSender, Destinations]]:
    config = WebhooksConfig(
        allow_http=True,
        allowed_ports=(port,),
        allowed_networks=("127.0.0.0/8",) if loopback else (),
        timeout_s=timeout_s,
    )
    known = resolver or FakeResolver({"hooks.example.com": [["127.0.0.1"]]})
    destinations = Destinations(DestinationRules.of(config), known)
    async with open_sender(destinations, config) as sender:
        yield sender, destinations


async def post(receiver: Receiver, path: str = "/in?x=1", *, timeout_s: float = 2.0) -> Outcome:
    """One send to a receiver over HTTP."""
    async with receiving(receiver) as port, sending(port, timeout_s=timeout_s) as (sender, destinations):
        destination = destinations.rules.parse(f"http://hooks.example.com:{port}{path}")
        return await sender.send(destination, HEADERS, '{"a":"ü"}')


async def test_a_post_arrives_as_it_was_signed() -> None:
    """The bytes of the body, the name in `Host`, the path and query, no header beside those that are meant."""
    receiver = Receiver()
    outcome = await post(receiver)
    assert (outcome.status, outcome.error, outcome.delivered) == (200, None, True)
    request_line, *lines = receiver.heads[0].strip().split("\r\n")
    assert request_line == "POST /in?x=1 HTTP/1.1"
    names = {line.partition(":")[0].lower() for line in lines}
    assert names == {"host", "content-type", "content-length", "user-agent", "webhook-id"}
    assert any(line.startswith("Host: hooks.example.com:") for line in lines)
    assert receiver.bodies == ['{"a":"ü"}'.encode()]


async def test_a_redirect_is_an_outcome_and_is_not_followed() -> None:
    """The place it names is never asked, though it is allowed."""
    elsewhere = Receiver()
    async with receiving(elsewhere) as port:
        location = f"http://127.0.0.1:{port}/latest/meta-data/".encode()
        receiver = Receiver(b"HTTP/1.1 307 X\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n")
        outcome = await post(receiver)
    assert (outcome.status, outcome.delivered) == (307, False)
    assert elsewhere.num_connections == 0


async def test_retry_after_comes_with_the_outcome() -> None:
    """As it was sent, in any case of the header's name."""
    outcome = await post(Receiver(b"HTTP/1.1 503 X\r\nretry-AFTER: 17\r\nContent-Length: 0\r\n\r\n"))
    assert (outcome.status, outcome.retry_after) == (503, "17")


async def test_an_answer_that_drips_ends_at_the_deadline() -> None:
    """A byte every 50 ms would keep each read alive; the whole exchange has 0.3 s."""
    outcome = await post(Receiver(drip_s=0.05), timeout_s=0.3)
    assert (outcome.status, outcome.error) == (None, "timeout")
    assert 300 <= outcome.duration_ms < 1500


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 100\r\n\r\nOK",  # and no more
        b"Transfer-Encoding: chunked\r\n\r\nno chunk\r\n",
    ],
)
async def test_a_status_counts_whatever_follows_it(rest: bytes) -> None:
    """The receiver took the event; sending it again would have its workflow run twice."""
    outcome = await post(Receiver(b"HTTP/1.1 200 OK\r\n" + rest), timeout_s=0.3)
    assert (outcome.status, outcome.error, outcome.delivered) == (200, None, True)
    refused = await post(Receiver(b"HTTP/1.1 503 X\r\nRetry-After: 9\r\n" + rest), timeout_s=0.3)
    assert (refused.status, refused.retry_after, refused.delivered) == (503, "9", False)


async def test_an_endless_answer_is_cut() -> None:
    """10 MB are announced; after 16 kB the status is enough."""
    body = b"x" * 1_000_000
    outcome = await post(Receiver(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n" + body))
    assert outcome.status == 200


async def test_what_is_no_http_is_a_broken_answer() -> None:
    """Another protocol's greeting, for one."""
    outcome = await post(Receiver(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"))
    assert outcome.error == "broken_answer"


async def test_a_closed_port_and_an_unknown_name_are_outcomes() -> None:
    """Nothing is raised."""
    async with receiving(Receiver()) as port:
        pass
    async with sending(port) as (sender, destinations):
        for host, error in (("hooks", "connection_failed"), ("unknown", "name_not_resolved")):
            destination = destinations.rules.parse(f"http://{host}.example.com:{port}/")
            assert (await sender.send(destination, HEADERS, "{}")).error == error


async def test_a_rebinding_name_is_never_connected_to() -> None:
    """Public when it was checked, loopback when it is called: the receiver on loopback sees no connection."""
    receiver = Receiver()
    resolver = FakeResolver({"rebind.example.com": [["93.184.216.34"], ["127.0.0.1"]]})
    async with receiving(receiver) as port, sending(port, resolver, loopback=False) as (sender, destinations):
        destination = await destinations.check(f"http://rebind.example.com:{port}/")
        outcome = await sender.send(destination, HEADERS, "{}")
    assert outcome.error == "destination_refused"
    assert receiver.num_connections == 0


async def test_a_name_is_looked_up_once_per_connection() -> None:
    """What was checked is what is connected to: no second look-up could differ."""
    resolver = FakeResolver({"hooks.example.com": [["127.0.0.1"], ["10.0.0.1"]]})
    async with receiving(Receiver()) as port, sending(port, resolver) as (sender, destinations):
        destination = destinations.rules.parse(f"http://hooks.example.com:{port}/")
        outcomes = [await sender.send(destination, HEADERS, "{}") for _ in range(2)]
    # The second send uses the first one's connection.
    assert [outcome.status for outcome in outcomes] == [200, 200]
    assert resolver.asked == ["hooks.example.com"]


async def test_the_next_address_is_tried_when_one_takes_no_connection() -> None:
    """127.0.0.2 refuses, 127.0.0.1 answers."""
    resolver = FakeResolver({"hooks.example.com": [["127.0.0.2", "127.0.0.1"]]})
    async with receiving(Receiver()) as port, sending(port, resolver) as (sender, destinations):
        destination = destinations.rules.parse(f"http://hooks.example.com:{port}/")
        assert (await sender.send(destination, HEADERS, "{}")).status == 200


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would resolve the name again, out of sight."""
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert (await post(Receiver())).status == 200


async def test_tls_is_verified_for_the_name_though_an_address_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """SNI and certificate are the name's; a certificate of another name, or of nobody known, ends the try."""
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    names: list[str | None] = []
    server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("hooks.example.com").configure_cert(server_tls)
    server_tls.sni_callback = lambda _socket, name, _context: names.append(name)
    resolver = FakeResolver({name: [["127.0.0.1"]] for name in ("hooks.example.com", "other.example.com")})
    outcomes = []
    for context in (trusting, ssl.create_default_context()):
        monkeypatch.setattr(httpx, "create_ssl_context", lambda context=context, **_: context)
        receiver = Receiver()
        async with receiving(receiver, server_tls) as port, sending(port, resolver) as (sender, destinations):
            for host in ("hooks.example.com", "other.example.com"):
                destination = destinations.rules.parse(f"https://{host}:{port}/")
                outcome = await sender.send(destination, HEADERS, "{}")
                outcomes.append(outcome.status or outcome.error)
    assert outcomes == [200, "tls_failed", "tls_failed", "tls_failed"]
    assert names == ["hooks.example.com", "other.example.com"] * 2
