"""Several samples of one prompt."""

import asyncio

import pytest

from agent.completion import Completion, Sampling
from agent.errors import EngineDead
from agent.fakes import FakeEngine
from agent.ports import GenerateRequest
from agent.siblings import siblings, together

REQUEST = GenerateRequest("r", (1, 2), Sampling(max_tokens=8, temperature=0.5, seed=10), cache_scope="acme")


async def test_a_single_sample_is_the_request_itself() -> None:
    """Id and seed stay as they are."""
    engine = FakeEngine(lambda request: "a")
    await siblings(engine, REQUEST, 1)
    assert engine.requests == [REQUEST]


async def test_siblings_differ_in_id_and_seed_alone() -> None:
    """Seeds go up from the request's; without one each is left to the engine."""
    engine = FakeEngine(lambda request: request.request_id)
    completions = await siblings(engine, REQUEST, 3)
    assert [completion.text for completion in completions] == ["r-0", "r-1", "r-2"]
    assert [request.sampling.seed for request in engine.requests] == [10, 11, 12]
    assert {(r.prompt_token_ids, r.sampling.temperature, r.cache_scope) for r in engine.requests} == {
        ((1, 2), 0.5, "acme")
    }
    engine.requests.clear()
    await siblings(engine, GenerateRequest("r", (1,), Sampling(max_tokens=8)), 2)
    assert [request.sampling.seed for request in engine.requests] == [None, None]


class _StallingEngine(FakeEngine):
    """Never answers sibling 0, and dies on sibling 1."""

    cancelled = False

    async def generate(self, request: GenerateRequest) -> Completion:
        if request.request_id == "r-1":
            raise EngineDead("gone")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        raise AssertionError("the event is never set")


async def test_an_error_is_raised_as_itself_and_ends_the_others() -> None:
    """No sibling goes on for a caller that is gone."""
    engine = _StallingEngine(lambda request: "")
    with pytest.raises(EngineDead, match="gone"):
        await siblings(engine, REQUEST, 2)
    assert engine.cancelled


async def test_nothing_to_await_is_no_result() -> None:
    """An empty list in, an empty list out."""
    assert await together([]) == []
