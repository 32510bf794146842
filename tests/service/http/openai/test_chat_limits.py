"""Limits and scopes where OpenAI's clients meet them: as for content, with errors in their own shape."""

import asyncio

import httpx
import pytest

from agent.config import LanguageSettings, LimitSettings, TenantSettings
from service.config import NodeConfig
from service.http.agent_node import AgentNode
from service.http.app import create_app
from service.http.fakes import FakeAuthenticator, FakeMetrics
from service.tenancy.record import Scope

CHAT: dict[str, object] = {"model": "coloq", "messages": [{"role": "user", "content": "Announce our new bell."}]}
CONTENT: dict[str, object] = {"kind": "create", "language": "en", "instructions": "Announce our new bell."}
BODIES = {"/v1/chat/completions": CHAT, "/v1/content": CONTENT}
KEY = {"Authorization": "Bearer tenant-key"}


class _Rig:
    """An app of the real agents whose one tenant has these limits; `reads` and `writes` are keys of one scope."""

    def __init__(self, limits: LimitSettings) -> None:
        tenant = TenantSettings(id="acme", languages={"en": LanguageSettings()}, limits=limits)
        self.node = AgentNode([tenant])
        scopes = {"reads": (Scope.READ,), "writes": (Scope.GENERATE,)}
        auth = FakeAuthenticator(dict.fromkeys(("tenant-key", *scopes), tenant), "admin-key", scopes=scopes)
        app = create_app(self.node, auth, NodeConfig(), FakeMetrics())
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://node", headers=KEY)


@pytest.mark.parametrize(
    ("method", "path", "key", "needed"),
    [("POST", "/v1/chat/completions", "reads", "generate"), ("GET", "/v1/models", "writes", "read")],
)
async def test_a_key_without_the_scope_is_refused_in_openais_shape(
    method: str, path: str, key: str, needed: str
) -> None:
    """403 `permission_error` that names the scope; the engine is not asked."""
    rig = _Rig(LimitSettings(requests_per_minute=9))
    response = await rig.client.request(method, path, headers={"Authorization": f"Bearer {key}"}, json=CHAT)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["code"]) == (403, "permission_error", "not_allowed")
    assert f"scope '{needed}'" in error["message"]
    assert response.headers["RateLimit"].startswith('"requests_per_minute";r=9')
    assert rig.node.engine.requests == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", BODIES)
async def test_the_tokens_of_a_reply_are_charged(path: str, stream: bool) -> None:
    """One request, and the tokens of prompt and reply, streamed or not."""
    rig = _Rig(LimitSettings(tokens_per_day=10**6))
    response = await rig.client.post(path, json={**BODIES[path], "stream": stream})
    assert response.status_code == 200, response.text
    (request,) = rig.node.engine.requests
    # A token for each character, and one that ends the reply.
    spent = len(request.prompt_token_ids) + len(rig.node.says) + 1
    assert rig.node.limits.used_today("acme") == (1, spent)
    plain = await rig.client.get("/v1/models")
    assert f"r={10**6 - spent};" in plain.headers["RateLimit"]


async def test_a_limit_that_is_reached_is_told_in_openais_shape() -> None:
    """The third of two requests a minute: 429 `rate_limit_error`, when to come back, and the state of the limit."""
    rig = _Rig(LimitSettings(requests_per_minute=2))
    for _ in range(2):
        assert (await rig.client.get("/v1/models")).status_code == 200
    response = await rig.client.post("/v1/chat/completions", json=CHAT)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["code"]) == (429, "rate_limit_error", "rate_limited")
    # Two a minute come back one in 30 seconds.
    assert 29 <= int(response.headers["Retry-After"]) <= 30
    assert response.headers["RateLimit-Policy"] == '"requests_per_minute";q=2;w=60'
    assert response.headers["RateLimit"].startswith('"requests_per_minute";r=0;')


@pytest.mark.parametrize("path", BODIES)
async def test_a_stream_counts_as_running_until_its_end(path: str) -> None:
    """Of one request at a time, the second is refused while the first goes on, and let in after it."""
    rig = _Rig(LimitSettings(concurrent_requests=1))
    rig.node.engine.pause_s = 0.05
    first = asyncio.create_task(rig.client.post(path, json={**BODIES[path], "stream": True}))
    while not rig.node.engine.requests:  # noqa: ASYNC110 - the fake engine keeps a list, and sets no event
        await asyncio.sleep(0.005)
    assert (await rig.client.post(path, json=BODIES[path])).status_code == 429
    assert (await first).status_code == 200
    assert (await rig.client.post(path, json=BODIES[path])).status_code == 200
