"""The client's side of one request, for each protocol that a load may use: the body, and what a reply tells."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from service.bench.http1 import BadReply, Connections, Response
from service.bench.load import Exchange, LoadPlan, PromptRecipe, Target

LANGUAGE = "en"
_OK = 200


class Client(Protocol):
    """Sends one request and waits for its end."""

    async def send(self, number: int, scheduled_s: float) -> Exchange:
        """The exchange of the ``number``-th prompt, a failed one included."""
        ...


def instructions(recipe: PromptRecipe, number: int) -> str:
    """The ``number``-th text of a recipe."""
    draw = random.Random(f"{recipe.seed} {number}")
    return " ".join(draw.choices(recipe.words, k=recipe.num_words))


def connections_to(target: Target) -> Connections:
    """Connections with the target's key."""
    return Connections(target.url, {"Authorization": f"Bearer {target.key}"} if target.key else {})


def client_of(plan: LoadPlan, http: Connections) -> Client:
    """The client of a plan's protocol."""
    if plan.target.kind == "content":
        return ContentClient(plan, http)
    return StreamClient(plan, http) if plan.target.stream else CompletionsClient(plan, http)


@dataclass(frozen=True, slots=True)
class ContentClient:
    """`POST /v1/content` of a node, whose reply tells its own times."""

    plan: LoadPlan
    http: Connections

    async def send(self, number: int, scheduled_s: float) -> Exchange:
        """See Client.send."""
        body = {
            "kind": "create",
            "language": self.plan.language,
            "instructions": instructions(self.plan.prompt, number),
            "max_tokens": self.plan.max_tokens,
            "temperature": self.plan.temperature,
        }
        return await _post(self.plan, self.http, "/v1/content", body, scheduled_s, _content_facts)


@dataclass(frozen=True, slots=True)
class CompletionsClient:
    """`POST /v1/completions` of a vLLM server, the reply in one piece."""

    plan: LoadPlan
    http: Connections

    async def send(self, number: int, scheduled_s: float) -> Exchange:
        """See Client.send."""
        body = completions_body(self.plan, number)
        return await _post(self.plan, self.http, "/v1/completions", body, scheduled_s, _completions_facts)


@dataclass(frozen=True, slots=True)
class StreamClient:
    """`POST /v1/completions` of a vLLM server, token by token."""

    plan: LoadPlan
    http: Connections

    async def send(self, number: int, scheduled_s: float) -> Exchange:
        """See Client.send."""
        body = completions_body(self.plan, number) | {"stream": True, "stream_options": {"include_usage": True}}
        return await _post(self.plan, self.http, "/v1/completions", body, scheduled_s, _stream_facts)


def completions_body(plan: LoadPlan, number: int) -> dict[str, Any]:
    """The request of the ``number``-th prompt, whose tokens are those that a node would send to its engine."""
    text = f"{plan.prompt.before}{instructions(plan.prompt, number)}{plan.prompt.after}"
    return {
        "model": plan.target.model,
        "prompt": text,
        "max_tokens": plan.max_tokens,
        "temperature": plan.temperature,
        "add_special_tokens": False,
    }


FactsOf = Callable[[Response, float], Awaitable[dict[str, Any]]]
"""Reads a reply whose head has come; the second argument is when the request was sent."""


async def _post(
    plan: LoadPlan, http: Connections, path: str, body: Mapping[str, Any], scheduled_s: float, facts_of: FactsOf
) -> Exchange:
    sent_s = time.monotonic()
    status = None
    facts: dict[str, Any] = {}
    try:
        async with asyncio.timeout(plan.timeout_s), http.post(path, msgspec.json.encode(body)) as response:
            status = response.status
            facts = await facts_of(response, sent_s) if status == _OK else await _refusal(response)
    except (OSError, EOFError, BadReply, ValueError, LookupError) as error:
        facts = {"error": f"{type(error).__name__}: {error}"}
    return Exchange(scheduled_s, sent_s, time.monotonic() - sent_s, status=status, **facts)


async def _refusal(response: Response) -> dict[str, Any]:
    """The reply's text stays out: a problem may quote the prompt."""
    await response.body()
    return {"error": f"status {response.status}"}


async def _content_facts(response: Response, _sent_s: float) -> dict[str, Any]:
    reply = msgspec.json.decode(await response.body())
    timing = reply["timing"]
    return {
        "prompt_tokens": reply["usage"]["prompt_tokens"],
        "completion_tokens": reply["usage"]["completion_tokens"],
        "finish_reason": reply["finish_reason"],
        "first_token_ms": timing.get("first_token_ms"),
        "inter_token_ms": timing.get("inter_token_ms"),
        "policy_version": reply["policy_version"],
    }


async def _completions_facts(response: Response, _sent_s: float) -> dict[str, Any]:
    reply = msgspec.json.decode(await response.body())
    return {
        "prompt_tokens": reply["usage"]["prompt_tokens"],
        "completion_tokens": reply["usage"]["completion_tokens"],
        "finish_reason": reply["choices"][0]["finish_reason"],
    }


async def _stream_facts(response: Response, sent_s: float) -> dict[str, Any]:
    """Facts of a stream of server-sent events. An event counts when its last byte comes."""
    facts: dict[str, Any] = {}
    first_s = last_s = None
    rest = b""
    async for chunk in response.chunks():
        now_s = time.monotonic()
        *events, rest = (rest + chunk).split(b"\n\n")
        for event in events:
            if not event.startswith(b"data: {"):
                continue
            data = msgspec.json.decode(event[6:])
            for choice in data["choices"]:
                first_s, last_s = first_s or now_s, now_s
                facts["finish_reason"] = choice["finish_reason"] or facts.get("finish_reason")
            if usage := data.get("usage"):
                facts |= {name: usage[name] for name in ("prompt_tokens", "completion_tokens")}
    if first_s is not None and last_s is not None:
        facts["first_token_ms"] = (first_s - sent_s) * 1000
        if (num_gaps := facts.get("completion_tokens", 0) - 1) > 0:
            facts["inter_token_ms"] = (last_s - first_s) / num_gaps * 1000
    return facts
