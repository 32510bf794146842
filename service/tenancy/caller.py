"""Who makes the request at hand: bound by the guard, read by whoever counts what it used.

Tasks started for a request inherit it. Work that outlives its process (a recovered job) has a tenant and no caller.
"""

from contextvars import ContextVar
from dataclasses import dataclass

from agent.config import UNLIMITED, LimitSettings, TenantSettings
from service.tenancy.record import ALL_SCOPES, Scope


@dataclass(frozen=True, slots=True)
class Caller:
    """A tenant through one of its keys."""

    tenant: TenantSettings
    key_id: str
    scopes: frozenset[Scope] = frozenset(ALL_SCOPES)
    limits: LimitSettings = UNLIMITED
    """The key's own."""


CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)
