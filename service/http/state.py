"""What one app was built with, and what one request carries; handlers reach both through typed functions.

A route's handler takes them as `Parts`, `Holder` and `Tenant`. The `get_` functions behind those are coroutines:
FastAPI runs a dependency that is none in a thread, and one such look-up costs more than the rest of a request.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from agent.config import TenantSettings
from service.config import NodeConfig
from service.http.ports import Authenticator, NodePorts, RequestMetrics
from service.tenancy.caller import Caller
from service.tenancy.limits import Passage


@dataclass(frozen=True, slots=True)
class AppParts:
    """The arguments of `create_app`."""

    node: NodePorts
    auth: Authenticator
    config: NodeConfig
    metrics: RequestMetrics


def parts_of(request: Request) -> AppParts:
    """The parts of the app that serves this request."""
    parts = request.app.state.parts
    assert isinstance(parts, AppParts)
    return parts


def request_id_of(request: Request) -> str:
    """The id that the middleware gave this request."""
    return str(request.state.request_id)


def caller_of(request: Request) -> Caller:
    """The tenant and key that the route's guard let in."""
    caller = request.state.caller
    assert isinstance(caller, Caller)
    return caller


def passage_of(request: Request) -> Passage:
    """The request's place among what runs, for whoever goes on with its work."""
    passage = request.state.passage
    assert isinstance(passage, Passage)
    return passage


def tenant_of(request: Request) -> TenantSettings:
    """The tenant that the route's guard let in."""
    return caller_of(request).tenant


async def get_parts(request: Request) -> AppParts:
    """`parts_of` as a dependency."""
    return parts_of(request)


async def get_caller(request: Request) -> Caller:
    """`caller_of` as a dependency."""
    return caller_of(request)


async def get_tenant(request: Request) -> TenantSettings:
    """`tenant_of` as a dependency."""
    return tenant_of(request)


Parts = Annotated[AppParts, Depends(get_parts)]
Holder = Annotated[Caller, Depends(get_caller)]
Tenant = Annotated[TenantSettings, Depends(get_tenant)]
