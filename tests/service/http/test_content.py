"""`POST /v1/content` and `GET /v1/me`."""

import re

import httpx
import pytest

from agent.alternatives import Alternatives
from agent.brief import Brief, Kind
from agent.completion import GenerationTiming, Sampling
from agent.errors import EngineDead, EngineError, PromptTooLong
from service.http.fakes import FakeNode

UNLIMITED = {
    "requests_per_minute": None,
    "tokens_per_minute": None,
    "concurrent_requests": None,
    "requests_per_day": None,
    "tokens_per_day": None,
}
BRIEF = {"kind": "create", "language": "de", "instructions": "Eine Klingel."}


async def test_a_brief_is_answered_with_its_verdict_and_its_policy(
    client: httpx.AsyncClient, node: FakeNode, tenant_key: dict[str, str]
) -> None:
    """The reply carries text, verdict per sentence, usage, timing and policy, in body and headers."""
    response = await client.post("/v1/content", headers=tenant_key, json=BRIEF)
    assert response.status_code == 200
    request_id = response.headers["X-Request-Id"]
    assert re.fullmatch(r"req_[A-Za-z0-9_-]{22}", request_id)
    assert response.headers["X-Policy-Version"] == "3"
    assert response.headers["X-Language-Verdict"] == "pass"
    # The fake says "Guten Tag.": 10 characters, 40 + 5 tokens.
    assert response.json() == {
        "request_id": request_id,
        "text": "Guten Tag.",
        "language": "de",
        "language_verdict": {
            "wanted": "de",
            "verdict": "pass",
            "share": 1.0,
            "sentences": [{"start": 0, "end": 10, "verdict": "pass", "language": "de", "confidence": 0.98}],
        },
        "policy_version": 3,
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 40, "completion_tokens": 5, "total_tokens": 45},
        "timing": {"duration_ms": 12.5, "first_token_ms": None, "inter_token_ms": None},
    }


async def test_a_measured_reply_says_when_its_tokens_came(
    client: httpx.AsyncClient, node: FakeNode, tenant_key: dict[str, str]
) -> None:
    """In milliseconds, to the microsecond; a reply of a single token has no time between tokens."""
    for inter_token_s, expected_ms in ((0.0061234, 6.123), (None, None)):
        node.content.timing = GenerationTiming(first_token_s=0.0301, inter_token_s=inter_token_s)
        response = await client.post("/v1/content", headers=tenant_key, json=BRIEF)
        assert response.json()["timing"] == {
            "duration_ms": 12.5,
            "first_token_ms": 30.1,
            "inter_token_ms": expected_ms,
        }


async def test_every_field_reaches_the_node(
    client: httpx.AsyncClient, node: FakeNode, tenant_key: dict[str, str]
) -> None:
    """The brief and the sampling parameters are those of the body, with the tenant's id and brand terms."""
    body = {
        "kind": "suggest",
        "language": "DE",
        "instructions": "kürzer",
        "text": "Eine Klingel.",
        "tone": "freundlich",
        "audience": "Pendler",
        "keywords": ["Klingel", "Rad"],
        "min_words": 5,
        "max_words": 50,
        "end_user": "u-1",
        "max_tokens": 64,
        "temperature": 0,
        "top_p": 0.9,
        "seed": 7,
    }
    response = await client.post("/v1/content", headers=tenant_key, json=body)
    assert response.status_code == 200, response.text
    brief, sampling, request_id = node.content.calls[0]
    assert brief == Brief(
        tenant="acme",
        kind=Kind.SUGGEST,
        language="de",
        instructions="kürzer",
        text="Eine Klingel.",
        tone="freundlich",
        audience="Pendler",
        keywords=("Klingel", "Rad"),
        min_words=5,
        max_words=50,
        end_user="u-1",
        brand_terms=("Klingelo",),
    )
    assert sampling == Sampling(max_tokens=64, temperature=0.0, top_p=0.9, seed=7)
    assert request_id == response.headers["X-Request-Id"]


async def test_null_and_empty_options_count_as_not_given(
    client: httpx.AsyncClient, node: FakeNode, tenant_key: dict[str, str]
) -> None:
    """Automation platforms send null or an empty text for what was left blank; the node's defaults apply."""
    blank = {"text": None, "tone": "", "keywords": None, "max_tokens": None, "temperature": None, "seed": None}
    response = await client.post("/v1/content", headers=tenant_key, json={**BRIEF, **blank})
    assert response.status_code == 200, response.text
    brief, sampling, _ = node.content.calls[0]
    assert (brief.text, brief.tone, brief.keywords) == ("", None, ())
    assert sampling == Sampling(max_tokens=256, temperature=0.5, top_p=1.0, seed=None)


async def test_several_texts_come_as_alternatives(
    client: httpx.AsyncClient, node: FakeNode, tenant_key: dict[str, str]
) -> None:
    """`n` texts are the reply's own and n - 1 others; a request for one has no such field."""
    response = await client.post("/v1/content", headers=tenant_key, json={**BRIEF, "n": 3, "best_of": 4})
    assert response.status_code == 200, response.text
    assert response.json()["alternatives"] == ["Guten Tag. 2", "Guten Tag. 3"]
    single = await client.post("/v1/content", headers=tenant_key, json={**BRIEF, "n": None, "best_of": 2})
    assert "alternatives" not in single.json()
    plain = await client.post("/v1/content", headers=tenant_key, json=BRIEF)
    assert "alternatives" not in plain.json()
    assert node.content.alternatives == [Alternatives(3, 4), Alternatives(1, 2), Alternatives(1, None)]


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"n": 0}, "n", "n must be between 1 and 8, got 0"),
        ({"n": 9}, "n", "n must be between 1 and 8, got 9"),
        ({"best_of": 1}, "best_of", "best_of must be between 2 and 8, got 1"),
        ({"n": 3, "best_of": 2}, "n", "n must not exceed best_of, got 3 > 2"),
        (
            {"n": 2, "temperature": 0},
            "n",
            "n needs a temperature above 0, which makes replies differ, got 2 at 0",
        ),
    ],
)
async def test_wrong_numbers_of_replies_are_422_naming_the_field(
    client: httpx.AsyncClient,
    node: FakeNode,
    tenant_key: dict[str, str],
    change: dict[str, object],
    field: str,
    message: str,
) -> None:
    """The rule, then what came; the node is not asked."""
    response = await client.post("/v1/content", headers=tenant_key, json={**BRIEF, **change})
    assert response.status_code == 422
    assert response.json()["errors"] == [{"field": field, "message": message}]
    assert node.content.calls == []


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        (
            {"language": "fr"},
            "language",
            "language must be one of this tenant's languages (de, en), got 'fr'",
        ),
        ({"max_tokens": 9000}, "max_tokens", "max_tokens must be between 1 and 256, got 9000"),
        ({"min_words": 9, "max_words": 3}, "min_words", "min_words must not exceed max_words, got 9 > 3"),
        ({"instructions": " "}, "instructions", "instructions: kind 'create' needs instructions, got an empty text"),
    ],
)
async def test_a_brief_that_breaks_a_rule_is_422_naming_field_and_rule(
    client: httpx.AsyncClient,
    node: FakeNode,
    tenant_key: dict[str, str],
    change: dict[str, object],
    field: str,
    message: str,
) -> None:
    """The rule, then what came; the node is not asked."""
    response = await client.post("/v1/content", headers=tenant_key, json={**BRIEF, **change})
    assert response.status_code == 422
    problem = response.json()
    assert problem["code"] == "invalid_brief"
    assert problem["detail"] == message
    assert problem["errors"] == [{"field": field, "message": message}]
    assert node.content.calls == []


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (EngineDead("EngineCore pid 4711 died"), 503, "engine_unavailable", "15"),
        (EngineError("CUDA error at 0xdead"), 500, "generation_failed", None),
        (PromptTooLong("prompt and reply must fit 1024 tokens, got 1500"), 422, "prompt_too_long", None),
    ],
)
async def test_engine_errors_are_problems(
    client: httpx.AsyncClient,
    node: FakeNode,
    tenant_key: dict[str, str],
    error: Exception,
    status: int,
    code: str,
    retry_after: str | None,
) -> None:
    """Each has its status and code; a dead engine says when to come back; no internals are told."""
    node.content.error = error
    response = await client.post("/v1/content", headers=tenant_key, json=BRIEF)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers.get("Retry-After") == retry_after
    assert "4711" not in response.text
    assert "0xdead" not in response.text


async def test_me_names_the_tenant_its_languages_and_its_limits(
    client: httpx.AsyncClient, tenant_key: dict[str, str]
) -> None:
    """The connection test of the automation platforms; brand terms and key hashes stay inside."""
    response = await client.get("/v1/me", headers=tenant_key)
    assert response.json() == {
        "tenant": "acme",
        "languages": ["de", "en"],
        "scopes": ["generate", "feedback", "read", "admin"],
        "rates": UNLIMITED,
        "key_rates": UNLIMITED,
        "limits": {"max_tokens": 256, "max_body_bytes": 2048, "hold_s": 0.2},
    }
