"""Chat completions as OpenAI's own Python client sees them: the real app and agents, a scripted engine, a socket."""

import json
import math
import time
from collections.abc import Callable, Iterator

import openai
import pytest
from fastapi import FastAPI
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

from agent.brief import Kind
from agent.completion import Sampling
from agent.errors import EngineDead
from agent.fakes import CharEncoder
from service.http.agent_node import AgentNode
from service.http.fakes import served

MESSAGES: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Announce the new bicycle bell, please."},
]


@pytest.fixture
def sdk(agent_app: FastAPI) -> Iterator[OpenAI]:
    """The client, with a tenant's key and no retries."""
    with served(agent_app) as url, OpenAI(base_url=f"{url}/v1", api_key="tenant-key", max_retries=0) as client:
        yield client


def test_a_completion(sdk: OpenAI, agent_node: AgentNode) -> None:
    """Text, end, usage and the version that answered; the episode is journalled as a chat."""
    answer = sdk.chat.completions.create(model="coloq", messages=MESSAGES, user="u1")
    (choice,) = answer.choices
    assert (choice.message.content, choice.message.role, choice.finish_reason) == (agent_node.says, "assistant", "stop")
    assert choice.logprobs is None
    assert answer.usage is not None
    # One token per character and a stop token.
    assert answer.usage.completion_tokens == len(agent_node.says) + 1
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.model == "coloq@v3"
    (episode,) = agent_node.journal.episodes
    assert (episode.id, episode.brief.kind, episode.brief.end_user) == (answer.id, Kind.CHAT, "u1")


def test_sampling_parameters_reach_the_engine(sdk: OpenAI, agent_node: AgentNode) -> None:
    """One stop text is a list of one; a negative seed is brought into the engine's range: -1 is 2**32 - 1."""
    sdk.chat.completions.create(
        model="coloq", messages=MESSAGES, temperature=0.3, top_p=0.5, seed=-1, stop="END", max_tokens=50
    )
    sdk.chat.completions.create(model="coloq", messages=MESSAGES, max_completion_tokens=7, stop=["a", "b"])
    first, second = [request.sampling for request in agent_node.engine.requests]
    assert first == Sampling(50, temperature=0.3, top_p=0.5, seed=2**32 - 1, stop=("END",))
    assert (second.max_tokens, second.stop) == (7, ("a", "b"))


def test_the_conversation_is_the_prompt(sdk: OpenAI, agent_node: AgentNode) -> None:
    """Parts of a message are joined, `developer` is a system message, and nothing of ours is added."""
    sdk.chat.completions.create(
        model="coloq",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "A "}, {"type": "text", "text": "bell."}]},
        ],
    )
    (request,) = agent_node.engine.requests
    assert CharEncoder.decode(request.prompt_token_ids) == "system: Be brief.user: A bell."


def test_stop_texts_and_limits_end_a_reply(sdk: OpenAI, agent_node: AgentNode) -> None:
    """A stop text is not part of the reply; a reply that is cut off says so."""
    agent_node.says = "One bell.END and more"
    stopped = sdk.chat.completions.create(model="coloq", messages=MESSAGES, stop="END").choices[0]
    cut = sdk.chat.completions.create(model="coloq", messages=MESSAGES, max_tokens=5).choices[0]
    assert (stopped.message.content, stopped.finish_reason) == ("One bell.", "stop")
    assert (cut.message.content, cut.finish_reason) == ("One b", "length")


def test_several_choices(sdk: OpenAI, agent_node: AgentNode) -> None:
    """`n` choices with indices, each with a seed of its own."""
    agent_node.reply = lambda request: f"Bell number {request.sampling.seed}."
    answer = sdk.chat.completions.create(model="coloq", messages=MESSAGES, n=3, seed=7)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert [choice.message.content for choice in answer.choices] == [f"Bell number {seed}." for seed in (7, 8, 9)]


def test_logprobs(sdk: OpenAI) -> None:
    """Every token with its log-probability, its bytes, and as many of the likeliest as were asked for."""
    answer = sdk.chat.completions.create(model="coloq", messages=MESSAGES, logprobs=True, top_logprobs=1)
    (choice,) = answer.choices
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert "".join(token.token for token in choice.logprobs.content) == choice.message.content
    first = choice.logprobs.content[0]
    # The engine's script says -0.5 for each.
    assert (first.token, first.bytes) == ("T", [ord("T")])
    assert math.isclose(first.logprob, -0.5)
    assert [other.token for other in first.top_logprobs] == ["T"]


def test_json_object_and_json_schema(sdk: OpenAI, agent_node: AgentNode) -> None:
    """The engine decodes to any object, or to the schema."""
    agent_node.says = '{"title": "The new bell"}'
    schema: dict[str, object] = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
    free = sdk.chat.completions.create(model="coloq", messages=MESSAGES, response_format={"type": "json_object"})
    bound = sdk.chat.completions.create(
        model="coloq",
        messages=MESSAGES,
        response_format={"type": "json_schema", "json_schema": {"name": "title", "schema": schema, "strict": True}},
    )
    assert json.loads(free.choices[0].message.content or "") == {"title": "The new bell"}
    assert free.choices[0].message.content == bound.choices[0].message.content
    assert [json.loads(request.sampling.schema or "") for request in agent_node.engine.requests] == [
        {"type": "object"},
        schema,
    ]


def test_a_stream(sdk: OpenAI, agent_node: AgentNode) -> None:
    """Chunks with the role first, the end last, and no usage unless it is asked for."""
    chunks = list(sdk.chat.completions.create(model="coloq", messages=MESSAGES, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == agent_node.says
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == ["stop"]
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_of_several_choices_with_usage_and_logprobs(sdk: OpenAI, agent_node: AgentNode) -> None:
    """Each choice's chunks carry its index; the last chunk has the tokens of all and no choice."""
    agent_node.engine.pause_s = 0.005
    agent_node.reply = lambda request: f"Bell number {request.sampling.seed} rings."
    chunks = list(
        sdk.chat.completions.create(
            model="coloq",
            messages=MESSAGES,
            stream=True,
            n=2,
            seed=1,
            logprobs=True,
            stream_options={"include_usage": True},
        )
    )
    *parts, last = chunks
    texts = {0: "", 1: ""}
    tokens = {0: "", 1: ""}
    for chunk in parts:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            if choice.logprobs is not None:
                tokens[choice.index] += "".join(token.token for token in choice.logprobs.content or [])
    assert texts == tokens == {0: "Bell number 1 rings.", 1: "Bell number 2 rings."}
    assert last.choices == []
    assert last.usage is not None
    # Twenty characters and a stop token, twice.
    assert last.usage.completion_tokens == 2 * 21


def test_closing_a_stream_ends_the_generation(sdk: OpenAI, agent_node: AgentNode) -> None:
    """The client hangs up after the first text of a reply that takes 0.6 s; long after that nothing was journalled."""
    agent_node.says = "word " * 30
    agent_node.engine.pause_s = 0.02
    with sdk.chat.completions.create(model="coloq", messages=MESSAGES, stream=True, max_tokens=256) as stream:
        assert next(iter(stream)).choices[0].delta.role == "assistant"
    time.sleep(1.5)
    assert agent_node.journal.episodes == ()


def test_models(sdk: OpenAI, agent_node: AgentNode) -> None:
    """`coloq` and the published versions that the engine holds; a version that left it is not among them."""
    assert [model.id for model in sdk.models.list()] == ["coloq", "coloq@v3", "coloq@v0"]
    assert sdk.models.retrieve("coloq@v3").id == "coloq@v3"
    agent_node.policies.evicted.add(0)
    assert [model.id for model in sdk.models.list()] == ["coloq", "coloq@v3"]


def test_a_version_answers_as_long_as_the_engine_holds_it(sdk: OpenAI, agent_node: AgentNode) -> None:
    """A pinned version samples the reply; when it is gone, or never was, the model is not found."""
    answer = sdk.chat.completions.create(model="coloq@v0", messages=MESSAGES)
    assert (answer.model, agent_node.engine.requests[0].policy_version) == ("coloq@v0", 0)
    agent_node.policies.evicted.add(0)
    for model in ("coloq@v0", "coloq@v41", "coloq@v03", "gpt-5"):
        with pytest.raises(openai.NotFoundError) as caught:
            sdk.chat.completions.create(model=model, messages=MESSAGES)
        assert caught.value.code == "model_not_found"
        with pytest.raises(openai.NotFoundError):
            sdk.models.retrieve(model)


@pytest.mark.parametrize(
    ("metadata", "header", "language"),
    [({"language": "de"}, "en", "de"), ({}, "de", "de"), ({}, None, "en")],
    ids=["metadata", "header", "the last message's"],
)
def test_the_verdicts_language(
    sdk: OpenAI, metadata: dict[str, str], header: str | None, language: str, agent_node: AgentNode
) -> None:
    """Metadata goes before the header; without either the tenant's language that the last message is in, which is
    English here. The reply is English, so it fails as German."""
    raw = sdk.chat.completions.with_raw_response.create(
        model="coloq",
        messages=MESSAGES,
        metadata=metadata,
        extra_headers={"X-Language": header} if header else {},
    )
    assert raw.headers["X-Language"] == language
    assert raw.headers["X-Language-Verdict"] == ("pass" if language == "en" else "failed")
    assert raw.headers["X-Policy-Version"] == "3"
    assert agent_node.journal.episodes[0].brief.language == language


def test_errors_are_the_clients_own_classes(sdk: OpenAI, agent_node: AgentNode) -> None:
    """No key is an authentication error, a broken rule a bad request with its field, a dead engine a server error that
    says when to come back."""
    with pytest.raises(openai.AuthenticationError) as unknown:
        sdk.with_options(api_key="nobodys").models.list()
    assert unknown.value.type == "authentication_error"
    with pytest.raises(openai.BadRequestError) as broken:
        sdk.chat.completions.create(model="coloq", messages=MESSAGES, temperature=9)
    assert (broken.value.param, broken.value.type) == ("temperature", "invalid_request_error")
    assert "temperature must be between 0 and 2, got 9" in broken.value.message
    assert broken.value.request_id is not None
    agent_node.engine.failure = EngineDead("gone")
    with pytest.raises(openai.InternalServerError) as dead:
        sdk.chat.completions.create(model="coloq", messages=MESSAGES, stream=True)
    assert (dead.value.status_code, dead.value.code) == (503, "engine_unavailable")
    assert dead.value.response.headers["Retry-After"] == "15"


@pytest.mark.parametrize("path", ["/v1", ""])
def test_a_route_of_openais_that_is_not_here_says_what_to_set(sdk: OpenAI, path: str) -> None:
    """The client shows the message: what there is, how a base URL ends, and that it is not to use the Responses API."""
    client = sdk.with_options(base_url=f"{str(sdk.base_url).removesuffix('/v1/')}{path}")
    calls: list[Callable[[], object]] = [
        lambda: client.responses.create(model="coloq", input="Hello."),
        lambda: client.completions.create(model="coloq", prompt="Hello."),
        lambda: client.embeddings.create(model="coloq", input="Hello."),
    ]
    if not path:
        calls += [client.models.list, lambda: client.chat.completions.create(model="coloq", messages=MESSAGES)]
    for call in calls:
        with pytest.raises(openai.NotFoundError) as missing:
            call()
        assert missing.value.code == "route_not_found"
        for part in ("/v1/chat/completions", "base URL ends with /v1", "Responses API is off"):
            assert part in missing.value.message
