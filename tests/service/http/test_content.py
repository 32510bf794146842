"""`POST /v1/content` and `GET /v1/me`."""

import json
import re

import httpx
import pytest

from agent.alternatives import Alternatives
from agent.brief import Brief, Example, Kind
from agent.completion import Bias, GenerationTiming, Sampling
from agent.config import AgentConfig, TenantSettings
from agent.errors import EngineDead, EngineError, PromptTooLong
from service.config import NodeConfig
from service.http.content_schema import ContentRequest
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
        "edits": None,
        "alternatives": None,
        "data": None,
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
        "forbidden_terms": ["billig"],
        "register": "informal",
        "examples": [{"given": "Rad", "wanted": "Rad fahren!"}, {"wanted": "Los!"}],
        "alternatives": 4,
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
        register="informal",
        forbidden_terms=("billig",),
        examples=(Example("Rad fahren!", "Rad"), Example("Los!")),
        num_alternatives=4,
    )
    assert sampling == Sampling(max_tokens=64, temperature=0.0, top_p=0.9, seed=7)
    assert request_id == response.headers["X-Request-Id"]


async def test_an_empty_text_counts_as_not_given(
    client: httpx.AsyncClient, node: FakeNode, tenant_key: dict[str, str], tenants: dict[str, TenantSettings]
) -> None:
    """Whatever the field takes: it is what Make and Zapier send for a field that is mapped from an empty cell. It is
    still no value for `kind`, and no excuse for a name that is none."""
    tenants["tenant-key"] = tenants["tenant-key"].model_copy(update={"fallback_language": "de"})
    optional = {info.alias or name for name, info in ContentRequest.model_fields.items()} - {"kind", "instructions"}
    empty = dict.fromkeys(optional, "")
    body = {"kind": "create", "instructions": "Eine Klingel."}
    for fields in (empty, {}):
        response = await client.post("/v1/content", headers=tenant_key, json={**body, **fields})
        assert response.status_code == 200, response.text
    assert node.content.calls[0][:2] == node.content.calls[1][:2]
    for name, value, field in (("kind", "", "kind"), ("maxwords", "", "maxwords"), ("keywords", [""], "keywords.0")):
        response = await client.post("/v1/content", headers=tenant_key, json={**body, name: value})
        assert response.status_code == 422
        assert [error["field"] for error in response.json()["errors"]] == [field]


async def test_a_translation_and_its_schema_reach_the_node(
    client: httpx.AsyncClient, node: FakeNode, tenant_key: dict[str, str]
) -> None:
    """Brief and sampling carry the schema as text; variables are filled in before."""
    body = {
        "kind": "translate",
        "language": "de",
        "text": "Une sonnette.",
        "source_language": "FR",
        "instructions": "For {{shop}}.",
        "variables": {"shop": "Velo"},
        "schema": {"type": "string"},
    }
    response = await client.post("/v1/content", headers=tenant_key, json=body)
    assert response.status_code == 200, response.text
    brief, sampling, _ = node.content.calls[0]
    assert (brief.kind, brief.source_language, brief.instructions) == (Kind.TRANSLATE, "fr", "For Velo.")
    assert brief.schema == sampling.schema == '{"type":"string"}'
    assert sampling.bias is Bias.SCHEMA


@pytest.mark.parametrize("config", [NodeConfig(agent=AgentConfig(hold_s=2.0))])
async def test_several_languages_are_one_call(
    client: httpx.AsyncClient, node: FakeNode, tenant_key: dict[str, str]
) -> None:
    """Each has its result, verdict and id, in the order that was asked for; they are written at the same time, so two
    that take 1.2 s each fit the 2 s that a call is held here."""
    node.content.delay_s = 1.2
    body = {"kind": "create", "languages": ["en", "de"], "instructions": "Eine Klingel."}
    response = await client.post("/v1/content", headers=tenant_key, json=body)
    assert response.status_code == 200, response.text
    answer = response.json()
    request_id = response.headers["X-Request-Id"]
    assert [result["language"] for result in answer["results"]] == ["en", "de"]
    assert [result["language_verdict"]["wanted"] for result in answer["results"]] == ["en", "de"]
    assert [result["request_id"] for result in answer["results"]] == [f"{request_id}-en", f"{request_id}-de"]
    # The fake says 40 + 5 tokens for each.
    assert answer["usage"] == {"prompt_tokens": 80, "completion_tokens": 10, "total_tokens": 90}
    assert answer["request_id"] == request_id
    assert [call[0].brand_terms for call in node.content.calls] == [(), ("Klingelo",)]
    assert response.headers["X-Language-Verdict"] == "pass"


async def test_one_failed_language_fails_the_call(
    client: httpx.AsyncClient, node: FakeNode, tenant_key: dict[str, str]
) -> None:
    """There is no 200 with an error inside."""
    node.content.error = EngineDead("gone")
    body = {"kind": "create", "languages": ["en", "de"], "instructions": "Eine Klingel."}
    response = await client.post("/v1/content", headers=tenant_key, json=body)
    assert (response.status_code, response.json()["code"]) == (503, "engine_unavailable")


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        (
            {"examples": [{"wanted": ""}]},
            "examples.0.wanted",
            'examples.0.wanted must have at least 1 character, got ""',
        ),
        ({"examples": [{"wanted": "x", "y": 1}]}, "examples.0.y", "unknown field examples.0.y; leave it out"),
        ({"variables": {"a b": "x"}}, "variables.a b", "variables.a b must match ^[A-Za-z_][A-Za-z0-9_]{0,63}$, got"),
        (
            {"schema": {"items": {"maximum": [5, float("nan")]}}},
            "schema.items.maximum.1",
            "schema.items.maximum.1 must be",
        ),
        ({"register": "rude"}, "register", 'register must be one of formal, informal, got "rude"'),
        ({"alternatives": 9}, "alternatives", "alternatives must be between 1 and 8, got 9"),
        ({"languages": []}, "languages", "languages must have at least 1 item, got a list of 0"),
    ],
)
async def test_a_broken_rule_names_the_place_in_the_body(
    client: httpx.AsyncClient, tenant_key: dict[str, str], change: dict[str, object], field: str, message: str
) -> None:
    """The path is one of the body that was sent, down to the part that breaks the rule."""
    body = json.dumps({**BRIEF, **change})
    headers = {**tenant_key, "Content-Type": "application/json"}
    problem = (await client.post("/v1/content", headers=headers, content=body)).json()
    assert problem["code"] == "invalid_request"
    (error,) = problem["errors"]
    assert error["field"] == field
    assert error["message"].startswith(message)


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
    """`n` texts are the reply's own and n - 1 others; a request for one has none."""
    response = await client.post("/v1/content", headers=tenant_key, json={**BRIEF, "n": 3, "best_of": 4})
    assert response.status_code == 200, response.text
    assert response.json()["alternatives"] == ["Guten Tag. 2", "Guten Tag. 3"]
    single = await client.post("/v1/content", headers=tenant_key, json={**BRIEF, "n": None, "best_of": 2})
    assert single.json()["alternatives"] is None
    plain = await client.post("/v1/content", headers=tenant_key, json=BRIEF)
    assert plain.json()["alternatives"] is None
    assert node.content.alternatives == [Alternatives(3, 4), Alternatives(1, 2), Alternatives(1, None)]


@pytest.mark.parametrize(
    ("change", "field", "bounds"),
    [
        ({"n": 0}, "n", "1 and 8, got 0"),
        ({"n": 9}, "n", "1 and 8, got 9"),
        ({"best_of": 1}, "best_of", "2 and 8, got 1"),
    ],
)
async def test_a_number_beyond_its_bounds_is_422_naming_them(
    client: httpx.AsyncClient, tenant_key: dict[str, str], change: dict[str, object], field: str, bounds: str
) -> None:
    """The document names the same bounds, so it is the schema that refuses."""
    problem = (await client.post("/v1/content", headers=tenant_key, json={**BRIEF, **change})).json()
    assert (problem["status"], problem["code"]) == (422, "invalid_request")
    assert problem["errors"] == [{"field": field, "message": f"{field} must be between {bounds}"}]


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
        ({"language": None}, "language", "language is required, or languages for several, got neither"),
        ({"languages": ["de"]}, "languages", "languages must not stand beside language, got both"),
        (
            {"language": None, "languages": ["de", "DE"]},
            "languages",
            "languages must name each language once, got de, DE",
        ),
        (
            {"language": None, "languages": ["de", "fr"]},
            "languages",
            "languages must be one of this tenant's languages (de, en), got 'fr'",
        ),
        ({"kind": "translate"}, "text", "text: kind 'translate' needs the text to translate, got an empty text"),
        ({"alternatives": 2}, "alternatives", "alternatives is for kind 'suggest', got kind 'create'"),
        ({"source_language": "fr"}, "source_language", "source_language is for kind 'translate', got kind 'create'"),
        (
            {"kind": "translate", "text": "x", "source_language": "xx"},
            "source_language",
            "source_language must be an ISO 639-1 code, got 'xx'",
        ),
        (
            {"variables": {"a": "1"}},
            "variables",
            "variables must be used in instructions as {{name}}, got a unused",
        ),
        ({"schema": {"type": "x"}}, "schema.type", "schema.type must be a JSON Schema: "),
        (
            {"kind": "suggest", "schema": {}},
            "schema",
            "schema: kind 'suggest' has a form of its own and takes no schema",
        ),
        ({"instructions": " "}, "instructions", "instructions: kind 'create' needs instructions, got an empty text"),
        ({"n": 3, "best_of": 2}, "n", "n must not exceed best_of, got 3 > 2"),
        (
            {"n": 2, "temperature": 0},
            "n",
            "n needs a temperature above 0, which makes replies differ, got 2 at 0",
        ),
        (
            {"kind": "suggest", "best_of": 2},
            "best_of",
            "best_of is not for kind 'suggest', whose number of texts is alternatives, got 2",
        ),
        (
            {"best_of": 2, "stream": True},
            "best_of",
            "best_of must not stand beside stream: the best is known at the end, got 2",
        ),
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
    assert problem["detail"].startswith(message)
    assert problem["errors"] == [{"field": field, "message": problem["detail"]}]
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
