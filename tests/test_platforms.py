"""The guide for Make, n8n and Zapier: every request in it is sent, and answered as it says.

A block is one exchange: a request to `$NODE` with its answer, `(the same request again)` with its answer, or an event
that the node sends. JSON that is shown is a part of what comes; `…` stands for anything; `$NAME` is bound where an
answer shows it first, and put in where it comes again.
"""

import asyncio
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from agent.config import LanguageSettings, TenantSettings
from service.config import NodeConfig
from service.config_tree import keys
from service.http.agent_node import AgentNode
from service.http.app import create_app
from service.http.fakes import FakeAuthenticator, FakeMetrics
from service.http.job_webhooks import JobWebhooks
from service.jobs.desk import JobDesk
from service.jobs.fakes import MemoryJobStore
from service.webhooks.assembly import Webhooks
from service.webhooks.config import WebhooksConfig
from service.webhooks.deliveries import Deliveries
from service.webhooks.destinations import DestinationRules, Destinations, FakeResolver
from service.webhooks.endpoints import Endpoints
from service.webhooks.fakes import FakeEndpoints, FakeHooks, FakeQueue
from service.webhooks.hooks import Hooks
from service.webhooks.records import Delivery, utc_now
from service.webhooks.signing import signature_headers

TEXT = (Path(__file__).parent.parent / "deploy" / "PLATFORMS.md").read_text(encoding="utf-8")
NODE = "https://coloq.example.com"
ACME = TenantSettings(id="acme", languages={"en": LanguageSettings(), "pl": LanguageSettings()})
WAIT_S = 5.0


@dataclass(frozen=True)
class Message:
    """A request, an answer or an event: first line, header fields and body."""

    start: str
    headers: dict[str, str]
    body: str

    @classmethod
    def of(cls, text: str) -> Self:
        """Of an HTTP message in which an answer's JSON may follow its header fields at once."""
        start, *lines = text.strip().splitlines()
        body_at = next((n for n, line in enumerate(lines) if not line.strip() or line.startswith("{")), len(lines))
        headers = dict(line.split(": ", 1) for line in lines[:body_at])
        return cls(start, headers, "\n".join(lines[body_at:]).strip())


@dataclass(frozen=True)
class Exchange:
    """One block of the guide."""

    request: Message
    answer: Message | None
    """None for an event."""
    says: str
    """The text that the engine is to write: the next one that the guide shows."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def exchanges() -> Iterator[Exchange]:
    found = blocks("http")
    last: Message | None = None
    for number, block in enumerate(found):
        before, separator, after = block.partition("\nHTTP/1.1 ")
        request = Message.of(before)
        if request.start == "(the same request again)":
            assert last is not None
            request = last
        last = request
        shown = "".join([after if separator else before, *found[number + 1 :]])
        texts = re.findall(r'"text": ("(?:[^"\\]|\\.)*")', shown)
        answer = Message.of(f"HTTP/1.1 {after}") if separator else None
        yield Exchange(request, answer, json.loads(texts[0]) if texts else "")


class Names:
    """What `$NAME` stands for by now."""

    def __init__(self) -> None:
        self.values = {"NODE": NODE, "KEY": "tenant-key"}

    def filled(self, text: str) -> str:
        """With every name replaced by its value."""
        return re.sub(r"\$([A-Z]+)", lambda match: self.values[match[1]], text)

    def check(self, shown: object, came: object, where: str = "") -> None:
        """Fail unless ``came`` holds what is shown, and bind names that were not known."""
        if isinstance(shown, dict):
            assert isinstance(came, dict), where
            for name, value in shown.items():
                assert name in came, f"{where}.{name} is missing in {came}"
                self.check(value, came[name], f"{where}.{name}")
        elif isinstance(shown, list):
            assert isinstance(came, list), where
            assert len(shown) == len(came), where
            for value, other in zip(shown, came, strict=True):
                self.check(value, other, f"{where}[]")
        elif isinstance(shown, str):
            assert isinstance(came, str), where
            self._check_text(shown, came, where)
        else:
            assert came == shown, where

    def _check_text(self, shown: str, came: str, where: str) -> None:
        pattern = ""
        for part in re.split(r"(\$[A-Z]+|…)", shown):
            if part == "…":
                pattern += ".*"
            elif part.startswith("$") and part[1:] not in self.values:
                pattern += f"(?P<{part[1:]}>.+)"
            else:
                pattern += re.escape(self.filled(part))
        match = re.fullmatch(pattern, came, re.DOTALL)
        assert match is not None, f"{where} must be {shown}, got {came}"
        self.values |= match.groupdict()


def guide_webhooks() -> Webhooks:
    """Webhooks in memory that can resolve the guide's hosts."""
    config = WebhooksConfig()
    hosts = set(re.findall(r"https://([a-z0-9.-]+)/", TEXT))
    resolver = FakeResolver({host: [["93.184.216.34"]] for host in hosts})
    destinations, records = Destinations(DestinationRules.of(config), resolver), FakeEndpoints()
    endpoints = Endpoints(records, destinations, config, utc_now)
    return Webhooks(
        endpoints, Deliveries(FakeQueue(), records, endpoints, config, utc_now), Hooks(FakeHooks(), config, utc_now)
    )


class Reader:
    """Follows the guide from top to bottom against an app of the real agents."""

    def __init__(self) -> None:
        self.node = AgentNode([ACME])
        self.node.webhooks = guide_webhooks()
        events = JobWebhooks(self.node.webhooks.deliveries)
        self.node.jobs = JobDesk(MemoryJobStore(), self.node.jobs.executor, events, NodeConfig().jobs, sole_user=True)
        self.names = Names()
        self.num_compared = 0
        self.app = create_app(self.node, FakeAuthenticator({"tenant-key": ACME}), NodeConfig(), FakeMetrics())
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=NODE)

    async def follow(self) -> None:
        async with self.client, self.node.jobs.running():
            for exchange in exchanges():
                self.node.says = exchange.says
                if exchange.answer is None:
                    await self.expect_event(exchange.request)
                else:
                    await self.send(exchange.request, exchange.answer)
                self.num_compared += 1

    async def send(self, request: Message, answer: Message) -> None:
        method, url = self.names.filled(request.start).split(" ")
        headers = {name: self.names.filled(value) for name, value in request.headers.items()}
        content = self.names.filled(request.body)
        response = await self.client.request(method, url, headers=headers, content=content)
        assert f"HTTP/1.1 {response.status_code}" == answer.start, response.text
        self.names.check(answer.headers, {name: response.headers.get(name, "") for name in answer.headers}, url)
        self.names.check(json.loads(answer.body), response.json(), url)

    async def expect_event(self, shown: Message) -> None:
        url = shown.start.removeprefix("POST ")
        delivery = await self.delivery(url)
        secrets = await self.node.webhooks.endpoints.rotate_callback_secret("acme")
        headers = signature_headers(secrets, delivery.id, delivery.body, utc_now())
        self.names.check(shown.headers, headers, url)
        self.names.check(json.loads(shown.body), json.loads(delivery.body), url)

    async def delivery(self, url: str) -> Delivery:
        """The event for a callback URL, once it is queued."""
        async with asyncio.timeout(WAIT_S):
            while True:
                page = await self.node.webhooks.deliveries.page("acme", cursor=None, limit=100)
                if found := [item for item in page.deliveries if item.callback_url == url]:
                    return found[0]
                await asyncio.sleep(0.01)


async def test_every_request_of_the_guide_is_answered_as_it_says() -> None:
    """From top to bottom, with the engine writing the texts that the guide shows; what is sent again is not written
    again."""
    reader = Reader()
    await reader.follow()
    posted = [block for block in blocks("http") if block.startswith("POST $NODE/v1/content")]
    assert reader.num_compared == len(blocks("http"))
    # Four briefs, one of them sent twice, and one of the hook: five texts.
    assert (len(posted), len(reader.node.journal.episodes)) == (4, 5)
    assert reader.node.failures == []


@pytest.mark.parametrize(("tampered", "genuine"), [(False, True), (True, False)])
async def test_the_guides_program_knows_a_genuine_event(tampered: bool, genuine: bool) -> None:
    """Run as Zapier runs it, on an event that the node has signed; one changed letter is noticed."""
    secrets = await guide_webhooks().endpoints.rotate_callback_secret("acme")
    body = '{"type":"job.completed"}'
    headers = signature_headers(secrets, "msg_1", body, utc_now())
    given = {
        "secret": secrets.current,
        "body": body.replace("completed", "completes") if tampered else body,
        "id": headers["webhook-id"],
        "timestamp": headers["webhook-timestamp"],
        "signature": headers["webhook-signature"],
    }
    scope: dict[str, Any] = {"input_data": given}
    (program,) = blocks("python")
    exec(program, scope)
    assert scope["output"] == {"genuine": genuine}
    given["timestamp"] = str(int(time.time()) - 3600)
    exec(program, scope)
    assert scope["output"] == {"genuine": False}


def test_the_guides_other_paths_and_keys_exist() -> None:
    """What the prose names can be called, or set by the operator."""
    reader = Reader()
    paths = reader.app.openapi()["paths"]
    for method, path in re.findall(r"`(GET|POST) \$NODE(/[a-z0-9/-]+)`", TEXT):
        assert method.lower() in paths[path]
    known = {key.path for key in keys()}
    named = set(re.findall(r"`((?:agent|jobs|webhooks)\.[a-z_]+)`", TEXT))
    assert named
    assert named - known == set()
