"""OpenAI's own client, and streams, on a node with a real vLLM engine: what a scripted engine cannot show."""

import json
from collections.abc import Iterator

import httpx
import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

from agent.brief import Kind
from tests.integration.node_process import NodeProcess

pytestmark = pytest.mark.engine

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Write about the sea."}]
SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 12},
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
    },
    "required": ["title", "stars"],
    "additionalProperties": False,
}


@pytest.fixture
def sdk(node: NodeProcess) -> Iterator[OpenAI]:
    """The client with the tenant's key."""
    with OpenAI(
        base_url=f"{node.url}/v1",
        api_key=node.key.plain,
        max_retries=0,
        timeout=60,
        default_headers={"X-Language": "en"},
    ) as client:
        yield client


async def test_a_chat_is_sampled_and_journalled(sdk: OpenAI, node: NodeProcess) -> None:
    """Two choices of one seed repeat; the episode has tokens with finite logprobs."""
    first, again = (
        sdk.chat.completions.create(model="coloq", messages=MESSAGES, n=2, seed=3, max_tokens=12) for _ in range(2)
    )
    texts = [choice.message.content for choice in first.choices]
    assert len(texts) == 2
    assert texts == [choice.message.content for choice in again.choices]
    assert first.usage is not None
    assert first.usage.completion_tokens <= 24
    episode = await node.episode(first.id)
    assert episode.brief.kind is Kind.CHAT
    assert [completion.text for completion in episode.completions] == texts
    assert all(-60 < logprob <= 0 for completion in episode.completions for logprob in completion.logprobs)


def test_a_stream_says_what_a_plain_call_says(sdk: OpenAI) -> None:
    """With the same seed: text, number of tokens, and end; the logprobs of all chunks are those of the reply.

    Nobody names the language here: a plain call that does may be repaired, and a stream may not.
    """
    sdk = sdk.with_options(set_default_headers={})
    whole = sdk.chat.completions.create(model="coloq", messages=MESSAGES, seed=5, max_tokens=24, logprobs=True)
    chunks = list(
        sdk.chat.completions.create(
            model="coloq",
            messages=MESSAGES,
            seed=5,
            max_tokens=24,
            logprobs=True,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    parts = [choice for chunk in chunks for choice in chunk.choices]
    assert "".join(part.delta.content or "" for part in parts) == whole.choices[0].message.content
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    streamed = [token.logprob for part in parts if part.logprobs for token in part.logprobs.content or []]
    assert whole.choices[0].logprobs is not None
    plain = [token.logprob for token in whole.choices[0].logprobs.content or []]
    assert streamed == pytest.approx(plain, abs=1e-4)


def test_top_logprobs_are_the_likeliest(sdk: OpenAI) -> None:
    """Best first; a greedy token is the best of its position."""
    answer = sdk.chat.completions.create(
        model="coloq", messages=MESSAGES, temperature=0, max_tokens=4, logprobs=True, top_logprobs=3
    )
    assert answer.choices[0].logprobs is not None
    for token in answer.choices[0].logprobs.content or []:
        values = [other.logprob for other in token.top_logprobs]
        assert values == sorted(values, reverse=True)
        assert len(values) == 3
        assert token.logprob == pytest.approx(values[0])


def test_stop_texts_end_a_reply(sdk: OpenAI) -> None:
    """The text before the first of them is the reply, streamed or not."""
    whole = sdk.chat.completions.create(model="coloq", messages=MESSAGES, seed=5, max_tokens=24)
    text = whole.choices[0].message.content or ""
    stop = text[len(text) // 2]
    for stream in (False, True):
        answer = sdk.chat.completions.create(
            model="coloq", messages=MESSAGES, seed=5, max_tokens=24, stop=stop, stream=stream
        )
        if isinstance(answer, openai.Stream):
            chunks = list(answer)
            said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            reason = chunks[-1].choices[0].finish_reason
        else:
            said, reason = answer.choices[0].message.content or "", answer.choices[0].finish_reason
        assert (said, reason) == (text[: text.index(stop)], "stop")


def test_json_keeps_to_its_schema(sdk: OpenAI, node: NodeProcess) -> None:
    """Even a model that knows no JSON writes it; `data` of a content reply is read and checked."""
    answer = sdk.chat.completions.create(
        model="coloq",
        messages=MESSAGES,
        seed=1,
        max_tokens=200,
        response_format={"type": "json_schema", "json_schema": {"name": "card", "schema": SCHEMA}},
    )
    card = json.loads(answer.choices[0].message.content or "")
    body = {
        "kind": "create",
        "language": "en",
        "instructions": "A card.",
        "schema": SCHEMA,
        "seed": 2,
        "max_tokens": 200,
    }
    reply = httpx.post(f"{node.url}/v1/content", headers=node.tenant_headers, json=body, timeout=60).json()
    for data in (card, reply["data"]):
        assert set(data) == {"title", "stars"}
        assert len(data["title"]) <= 12
        assert data["stars"] in range(1, 6)


@pytest.mark.parametrize(
    "schema",
    [{"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, {"type": "object", "minProperties": 1}],
)
def test_a_schema_that_cannot_be_decoded_to_is_the_callers_mistake(sdk: OpenAI, schema: dict[str, object]) -> None:
    """`uniqueItems` is a JSON Schema keyword that no backend knows; of no properties there cannot be one."""
    with pytest.raises(openai.BadRequestError, match="schema: the engine cannot decode to it") as caught:
        sdk.chat.completions.create(
            model="coloq",
            messages=MESSAGES,
            response_format={"type": "json_schema", "json_schema": {"name": "list", "schema": schema}},
        )
    assert caught.value.code == "invalid_brief"


def test_models_are_what_the_engine_holds(sdk: OpenAI) -> None:
    """At least the alias and the untuned model; one that was never published is not found."""
    names = [model.id for model in sdk.models.list()]
    assert {"coloq", "coloq@v0"} <= set(names)
    assert sdk.chat.completions.create(model="coloq@v0", messages=MESSAGES, max_tokens=2).model == "coloq@v0"
    with pytest.raises(openai.NotFoundError):
        sdk.chat.completions.create(model="coloq@v999999", messages=MESSAGES)


def test_content_streams_and_speaks_several_languages(node: NodeProcess) -> None:
    """Deltas of both languages together with the reply that counts, on one connection."""
    body = {
        "kind": "create",
        "languages": ["en", "de"],
        "instructions": "The sea.",
        "seed": 4,
        "max_tokens": 16,
        "stream": True,
    }
    text = {"en": "", "de": ""}
    with httpx.stream("POST", f"{node.url}/v1/content", headers=node.tenant_headers, json=body, timeout=60) as response:
        assert response.status_code == 200
        name = ""
        for line in response.iter_lines():
            kind, _, value = line.partition(": ")
            name = value if kind == "event" else name
            if kind == "data" and name == "delta":
                delta = json.loads(value)
                text[delta["language"]] += delta["text"]
            elif kind == "data":
                reply = json.loads(value)
    assert name == "done"
    assert {result["language"]: result["text"] for result in reply["results"]} == text
