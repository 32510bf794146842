"""`POST /v1/content` with the content agent behind it, on a scripted engine."""

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from pydantic import JsonValue

from agent.completion import Sampling
from agent.fakes import CharEncoder
from agent.ports import GenerateRequest
from agent.structure import read_schema
from service.http.agent_node import AgentNode


async def write(client: httpx.AsyncClient, key: dict[str, str], **body: Any) -> Any:
    response = await client.post("/v1/content", headers=key, json={"language": "en", **body})
    assert response.status_code == 200, response.text
    return response.json()


async def test_a_correction_shows_its_edits(
    agent_client: httpx.AsyncClient, agent_node: AgentNode, tenant_key: dict[str, str]
) -> None:
    """Spans are those of the text that was sent, in code points."""
    agent_node.says = "They're going to the market."
    answer = await write(agent_client, tenant_key, kind="correct", text="Their going too the market.")
    assert answer["text"] == "They're going to the market."
    assert answer["edits"] == [
        {"start": 0, "end": 5, "replacement": "They're", "reason": "spelling"},
        {"start": 12, "end": 15, "replacement": "to", "reason": "spelling"},
    ]


async def test_suggestions_are_distinct(
    agent_client: httpx.AsyncClient, agent_node: AgentNode, tenant_key: dict[str, str]
) -> None:
    """Three are asked for by default; a model that only repeats itself gives fewer, and the reply shows them alone."""
    agent_node.says = "1. A bell that rings.\n2. a bell that rings!\n3. Ring before the bend."
    answer = await write(agent_client, tenant_key, kind="suggest", instructions="Slogans")
    assert answer["alternatives"] == ["A bell that rings.", "Ring before the bend."]
    # The list holds two of three; one more was sampled and said the same.
    assert [request.sampling.max_tokens for request in agent_node.engine.requests] == [256, 256]


async def test_a_schemas_data_is_in_the_reply(
    agent_client: httpx.AsyncClient, agent_node: AgentNode, tenant_key: dict[str, str]
) -> None:
    """The engine is asked to decode to the schema, the prompt shows it, and the JSON is checked and read."""
    agent_node.says = '{"title": "The bell"}'
    schema = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
    answer = await write(agent_client, tenant_key, kind="create", instructions="A title", schema=schema)
    assert answer["data"] == {"title": "The bell"}
    (request,) = agent_node.engine.requests
    assert request.sampling.schema == '{"type":"object","properties":{"title":{"type":"string"}},"required":["title"]}'
    assert request.sampling.schema in CharEncoder.split(request.prompt_token_ids)[1]


async def test_a_plain_call_checks_its_schema_once(
    agent_client: httpx.AsyncClient, agent_node: AgentNode, tenant_key: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brief and sampling share it, and the call is not read anew from the order that a job would keep."""
    checked: list[object] = []

    def read_and_note(schema: Mapping[str, JsonValue]) -> str:
        checked.append(schema)
        return read_schema(schema)

    monkeypatch.setattr("service.http.content_schema.read_schema", read_and_note)
    agent_node.says = '{"title": "The bell."}'
    await write(agent_client, tenant_key, kind="create", instructions="A title", schema={"type": "object"})
    assert checked == [{"type": "object"}]


async def test_a_reply_that_breaks_the_schema_is_422_and_says_what_to_do(
    agent_client: httpx.AsyncClient, agent_node: AgentNode, tenant_key: dict[str, str]
) -> None:
    """It is not served as if it fitted."""
    agent_node.says = '{"title": "The'
    body = {"kind": "create", "language": "en", "instructions": "A title", "schema": {"type": "object"}}
    response = await agent_client.post("/v1/content", headers=tenant_key, json=body)
    assert (response.status_code, response.json()["code"]) == (422, "schema_not_met")
    assert "max_tokens" in response.json()["detail"]


async def test_a_call_for_two_languages_asks_in_each(
    agent_client: httpx.AsyncClient, agent_node: AgentNode, tenant_key: dict[str, str]
) -> None:
    """Each language's prompt is in that language, and each reply is an episode of its own."""

    def reply(request: GenerateRequest) -> str:
        german = "Übersetze" in CharEncoder.split(request.prompt_token_ids)[1]
        return "Das ist die neue Klingel." if german else "This is the new bell."

    agent_node.reply = reply
    body = {"kind": "translate", "languages": ["de", "en"], "text": "Nouvelle sonnette."}
    response = await agent_client.post("/v1/content", headers=tenant_key, json=body)
    results = response.json()["results"]
    assert [result["text"] for result in results] == ["Das ist die neue Klingel.", "This is the new bell."]
    assert {episode.id for episode in agent_node.journal.episodes} == {result["request_id"] for result in results}


async def test_several_texts_in_each_language(
    agent_client: httpx.AsyncClient, agent_node: AgentNode, tenant_key: dict[str, str]
) -> None:
    """Each result has the best of its own three samples and one alternative; all six are kept in two episodes."""
    agent_node.reply = lambda request: "This is " + "very " * (request.sampling.seed or 0) + "new."
    body = {"kind": "create", "languages": ["de", "en"], "instructions": "A bell.", "n": 2, "best_of": 3, "seed": 0}
    response = await agent_client.post("/v1/content", headers=tenant_key, json=body)
    # The fake ranker likes long texts: seed 2 is the best, seed 1 the next.
    for result in response.json()["results"]:
        assert (result["text"], result["alternatives"]) == ("This is very very new.", ["This is very new."])
    assert [len(episode.completions) for episode in agent_node.journal.episodes] == [3, 3]
    assert len({request.request_id for request in agent_node.engine.requests}) == 6


async def test_a_stream_tells_the_first_of_several_texts(
    agent_client: httpx.AsyncClient, agent_node: AgentNode, tenant_key: dict[str, str]
) -> None:
    """The text of its deltas is the reply's, and `done` has the others."""
    agent_node.reply = lambda request: f"Bell number {request.sampling.seed}."
    body = {"kind": "create", "language": "en", "instructions": "A bell.", "n": 2, "seed": 1, "stream": True}
    response = await agent_client.post("/v1/content", headers=tenant_key, json=body)
    events = [block.split("\n") for block in response.text.strip().split("\n\n")]
    told = [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in events]
    assert "".join(data["text"] for name, data in told if name == "delta") == "Bell number 1."
    name, reply = told[-1]
    assert (name, reply["text"], reply["alternatives"]) == ("done", "Bell number 1.", ["Bell number 2."])


async def test_sampling_is_the_requests(
    agent_client: httpx.AsyncClient, agent_node: AgentNode, tenant_key: dict[str, str]
) -> None:
    """What was asked for is what the engine is asked for."""
    await write(agent_client, tenant_key, kind="rewrite", text="The bell.", max_tokens=40, temperature=0.2, seed=3)
    assert agent_node.engine.requests[0].sampling == Sampling(max_tokens=40, temperature=0.2, seed=3)
