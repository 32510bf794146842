"""Work that is poked in the background."""

import asyncio

import pytest

from agent.config import LanguageSettings, TenantSettings
from agent.errors import StoreError
from service.jobs.pump import Pump
from service.tenancy.caller import CALLER, Caller

ACME = TenantSettings(id="acme", languages={"de": LanguageSettings()})


async def test_the_work_is_not_the_poking_requests() -> None:
    """A request of acme's key pokes; what is done then is charged to no key, since the jobs may be anybody's."""
    seen: list[Caller | None] = []
    done = asyncio.Event()

    async def drain() -> None:
        seen.append(CALLER.get())
        done.set()

    pump = Pump("test", drain)
    token = CALLER.set(Caller(ACME, "key_1"))
    pump.poke()
    CALLER.reset(token)
    await asyncio.wait_for(done.wait(), 5)
    await pump.close()
    assert seen == [None]


async def test_a_store_that_was_away_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One poke is enough: what it promised is still to be done when the store is back."""
    monkeypatch.setattr("service.jobs.pump._RETRY_S", 0.01)
    failures = [StoreError("away"), StoreError("away")]
    done = asyncio.Event()

    async def drain() -> None:
        if failures:
            raise failures.pop()
        done.set()

    pump = Pump("test", drain)
    pump.poke()
    await asyncio.wait_for(done.wait(), 5)
    await pump.close()
