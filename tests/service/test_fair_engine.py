"""The engine as live requests reach it."""

import asyncio

import pytest

from agent.completion import Sampling
from agent.config import LanguageSettings, TenantSettings
from agent.errors import EngineError, QueueFull
from agent.fakes import FakeEngine
from agent.ports import GenerateRequest, Priority
from service.fair_engine import FairEngine
from service.fair_queue import FairQueue, Share
from service.tenancy.caller import CALLER, Caller

CHARGED = list[tuple[str, Caller | None, int]]


def request(tenant: str, priority: Priority = Priority.LIVE) -> GenerateRequest:
    return GenerateRequest("req_1", (1, 2, 3), Sampling(max_tokens=16), priority, cache_scope=tenant)


def fair(engine: FakeEngine, charged: CHARGED, *, max_queued: int = 256) -> tuple[FairEngine, FairQueue]:
    queue = FairQueue(lambda: 1, lambda _: Share(max_queued=max_queued))
    return FairEngine(engine, queue, lambda *row: charged.append(row)), queue


async def test_tokens_of_a_reply_are_charged_to_tenant_and_key() -> None:
    """Three of the prompt, two letters and the stop token: 6, to whoever made the request."""
    charged: CHARGED = []
    engine, _ = fair(FakeEngine(lambda _: "ja"), charged)
    caller = Caller(TenantSettings(id="acme", languages={"de": LanguageSettings()}), "key_1")
    await engine.generate(request("acme"))
    CALLER.set(caller)
    await engine.generate(request("acme"))
    assert charged == [("acme", None, 6), ("acme", caller, 6)]


async def test_a_failed_generation_costs_nothing_and_frees_its_slot() -> None:
    """Of one slot, the next request gets it."""
    charged: CHARGED = []
    fake = FakeEngine(lambda _: "ja")
    engine, queue = fair(fake, charged)
    fake.failure = EngineError("broken")
    with pytest.raises(EngineError):
        await engine.generate(request("acme"))
    fake.failure = None
    await engine.generate(request("acme"))
    assert charged == [("acme", None, 6)]
    assert queue.num_waiting == 0


async def test_rollouts_pass_beside_the_queue() -> None:
    """They have slots of their own, take no turn and are charged to nobody."""
    charged: CHARGED = []
    engine, queue = fair(FakeEngine(lambda _: "ja"), charged, max_queued=1)
    async with queue.turn("acme", 16):
        await asyncio.wait_for(engine.generate(request("acme", Priority.ROLLOUT)), timeout=1)
        waiting = asyncio.create_task(engine.generate(request("acme")))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await engine.generate(request("acme"))
    await waiting
    assert charged == [("acme", None, 6)]
