"""Work that is poked in the background."""

import asyncio

from agent.config import LanguageSettings, TenantSettings
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
