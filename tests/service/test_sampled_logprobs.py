"""Reading log-probabilities: in few calls, and each request gets its own or the reason."""

import asyncio

import msgspec
import pytest

from agent.errors import EngineDead, EngineError
from service.sampled_logprobs import LogprobReader
from trainer.sampled import SampledRow


class Engine:
    """Knows requests `a` to `d`; each call takes a moment."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.failure: Exception | None = None

    async def take(self, request_ids: list[str]) -> bytes:
        self.calls.append(request_ids)
        await asyncio.sleep(0.01)
        if self.failure is not None:
            raise self.failure
        rows = [SampledRow([ord(name)], [-1.0]) if name in "abcd" else None for name in request_ids]
        return msgspec.msgpack.encode(rows)


async def test_requests_that_finish_meanwhile_share_the_next_call() -> None:
    """Four requests, two calls: the second has all that came while the first was under way."""
    engine = Engine()
    reader = LogprobReader(engine.take)
    first = asyncio.create_task(reader.read("a", [ord("a")]))
    await asyncio.sleep(0.001)
    others = [asyncio.create_task(reader.read(name, [ord(name)])) for name in "bcd"]
    assert await asyncio.gather(first, *others) == [(-1.0,)] * 4
    assert engine.calls == [["a"], ["b", "c", "d"]]
    assert await reader.read("b", [ord("b")]) == (-1.0,)
    assert len(engine.calls) == 3


async def test_an_unknown_request_or_another_token_is_an_engine_error() -> None:
    """The reply could not be trained on, and something is wrong."""
    reader = LogprobReader(Engine().take)
    with pytest.raises(EngineError, match="got 2 tokens of an unknown request"):
        await reader.read("x", [1, 2])
    with pytest.raises(EngineError, match="1 tokens must be among the 1 that were sampled"):
        await reader.read("a", [1])


async def test_a_failed_call_reaches_everyone_who_waits() -> None:
    """The next call is made all the same."""
    engine = Engine()
    reader = LogprobReader(engine.take)
    engine.failure = EngineDead("the engine process died")
    results = await asyncio.gather(*(reader.read(name, [ord(name)]) for name in "ab"), return_exceptions=True)
    assert [str(result) for result in results] == ["the engine process died"] * 2
    engine.failure = None
    assert await reader.read("c", [ord("c")]) == (-1.0,)
