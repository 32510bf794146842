"""Chat completions below the client: what is refused, and how a broken stream ends."""

import json
from typing import Any

import httpx
import pytest

from agent.errors import EngineDead
from service.http.fakes import FakeNode
from tests.service.http.openai.broken import BrokenChat

CHAT = {"model": "coloq", "messages": [{"role": "user", "content": "Hello."}]}
TOOL = {"type": "function", "function": {"name": "f"}}


def schema_format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


@pytest.mark.parametrize(
    ("change", "param", "message"),
    [
        ({"tools": [TOOL]}, "tools", "tools is not supported: this node has no tools; leave it out"),
        (
            {"tool_choice": "required"},
            "tool_choice",
            "tool_choice is not supported: this node has no tools; leave it out",
        ),
        (
            {"functions": [{"name": "f"}]},
            "functions",
            "functions is not supported: this node has no tools; leave it out",
        ),
        ({"logit_bias": {"1": 5}}, "logit_bias", "logit_bias is not supported; leave it out"),
        ({"presence_penalty": 0.5}, "presence_penalty", "presence_penalty must be 0: this node has no penalties"),
        ({"modalities": ["audio"]}, "modalities", "modalities must be ['text']: this node writes text"),
        ({"n": 9}, "n", "n must be between 1 and 8, got 9"),
        ({"top_logprobs": 3}, "top_logprobs", "top_logprobs needs logprobs to be true"),
        ({"stream_options": {}}, "stream_options", "stream_options needs stream to be true"),
        ({"max_tokens": 9000}, "max_tokens", "max_tokens must be between 1 and 256, got 9000"),
        (
            {"max_tokens": 5, "max_completion_tokens": 6},
            "max_completion_tokens",
            "max_completion_tokens must equal max_tokens, got 6 and 5",
        ),
        (
            {"metadata": {"language": "fr"}},
            "metadata.language",
            "metadata.language must be one of this tenant's languages (de, en), got 'fr'",
        ),
        (
            schema_format({"type": "x"}),
            "response_format.json_schema.schema.type",
            "response_format.json_schema.schema.type must be a JSON Schema",
        ),
        ({"messages": []}, "messages", "messages must have at least 1 item, got a list of 0"),
        (
            {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]},
            "messages",
            "messages must end with a message of the user that is not empty",
        ),
        (
            {"messages": [{"role": "user", "content": 5}]},
            "messages.0.content",
            "messages.0.content must be text, got 5; messages.0.content must be a list, got 5",
        ),
        (
            {"response_format": {"type": "xml"}},
            "response_format",
            "response_format must have type one of text, json_object, json_schema, got an object",
        ),
        (
            {"response_format": {"type": "json_schema"}},
            "response_format.json_schema",
            "response_format.json_schema is required, got nothing",
        ),
        ({"mesages": []}, "mesages", "unknown field mesages; did you mean messages?"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "stop must have at most 4 items, got a list of 5"),
    ],
)
async def test_what_the_node_does_not_do_is_refused_by_name(
    client: httpx.AsyncClient,
    node: FakeNode,
    tenant_key: dict[str, str],
    change: dict[str, object],
    param: str,
    message: str,
) -> None:
    """400 in OpenAI's shape: the field and the rule, before the engine is asked. Nothing that would change the answer
    is silently left out."""
    response = await client.post("/v1/chat/completions", headers=tenant_key, json={**CHAT, **change})
    assert response.status_code == 400
    assert response.headers["Content-Type"] == "application/json"
    error = response.json()["error"]
    assert error["message"].startswith(message)
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert node.chat.calls == []


@pytest.mark.parametrize(
    "part", [{"role": "tool", "content": "x"}, {"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]
)
async def test_messages_are_text_of_people_and_models(
    client: httpx.AsyncClient, tenant_key: dict[str, str], part: dict[str, object]
) -> None:
    """Tools' messages and images are refused, with the message's place."""
    body = {**CHAT, "messages": [part, {"role": "user", "content": "Hello."}]}
    response = await client.post("/v1/chat/completions", headers=tenant_key, json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith("messages.0.")


async def test_what_changes_nothing_is_taken(
    client: httpx.AsyncClient, node: FakeNode, tenant_key: dict[str, str]
) -> None:
    """Clients send defaults and null for what was left blank."""
    blank: dict[str, object] = {
        "tools": None,
        "tool_choice": "auto",
        "logit_bias": {},
        "presence_penalty": 0,
        "store": False,
        "seed": None,
    }
    response = await client.post("/v1/chat/completions", headers=tenant_key, json={**CHAT, **blank})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [("/v1/chat/completion", 404, "route_not_found"), ("/v1/models/x/y", 404, "route_not_found")],
)
async def test_errors_around_the_routes_have_the_shape_too(
    client: httpx.AsyncClient, tenant_key: dict[str, str], path: str, status: int, code: str
) -> None:
    """A mistyped path below OpenAI's is told in its shape; other paths keep problems."""
    response = await client.get(path, headers=tenant_key)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert (await client.get("/v1/content", headers=tenant_key)).json()["code"] == "method_not_allowed"


async def test_a_stream_that_breaks_ends_with_an_error(
    client: httpx.AsyncClient, node: FakeNode, tenant_key: dict[str, str]
) -> None:
    """The last line is an error in OpenAI's shape, and there is no `[DONE]`."""
    node.chat = BrokenChat(error=EngineDead("gone"))
    response = await client.post("/v1/chat/completions", headers=tenant_key, json={**CHAT, "stream": True})
    assert response.status_code == 200
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    assert json.loads(lines[-1])["error"]["code"] == "engine_unavailable"
    assert "[DONE]" not in lines


async def test_a_reply_that_takes_too_long_is_504(
    client: httpx.AsyncClient, node: FakeNode, tenant_key: dict[str, str]
) -> None:
    """hold_s is 0.2 here; the generation is cancelled."""
    node.chat.delay_s = 30
    response = await client.post("/v1/chat/completions", headers=tenant_key, json=CHAT)
    assert (response.status_code, response.json()["error"]["code"]) == (504, "generation_timeout")
    assert node.chat.cancelled.is_set()
