"""The engine as live requests reach it: tenants in turn when it is full, and every token counted.

live request ─► fair queue ─► engine ─► tokens charged to tenant and key
rollout, probe ─────────────► engine            (the slots of service.slots keep those aside)
"""

from collections.abc import Callable
from dataclasses import dataclass

from agent.completion import Completion
from agent.ports import Engine, GenerateRequest, Priority
from service.fair_queue import FairQueue
from service.tenancy.caller import CALLER, Caller

Charge = Callable[[str, Caller | None, int], None]
"""Tenant, caller and number of tokens; service.tenancy.limits.Limiter.charge."""


@dataclass(frozen=True, slots=True)
class FairEngine:
    """Implements agent.ports.Engine. A request's tenant is its ``cache_scope``."""

    engine: Engine
    queue: FairQueue
    charge: Charge

    async def generate(self, request: GenerateRequest) -> Completion:
        """See Engine.generate.

        Raises:
            QueueFull: as many of the tenant's requests wait as may.
        """
        if request.priority is not Priority.LIVE:
            return await self.engine.generate(request)
        tenant = request.cache_scope
        async with self.queue.turn(tenant, len(request.prompt_token_ids) + request.sampling.max_tokens):
            completion = await self.engine.generate(request)
        self.charge(tenant, CALLER.get(), len(completion.prompt_token_ids) + len(completion.token_ids))
        return completion
