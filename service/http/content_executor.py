"""Carries out orders of content: from the stored body to the answer that a caller reads."""

from typing import Protocol

from agent.config import AgentConfig, TenantSettings
from agent.errors import NotAllowed, NotFound
from service.http.content_order import CONTENT_ROUTE, ContentOrder
from service.http.content_schema import ContentRequest
from service.http.ports import ContentPort
from service.http.problem_schema import MEDIA_TYPE
from service.http.problems import broken_rules, problem_of
from service.jobs.records import Answer, Order


class TenantLookup(Protocol):
    """Finds tenants by id."""

    def get(self, tenant: str) -> TenantSettings | None:
        """The tenant's settings as they are now, or None."""
        ...


class ContentExecutor:
    """service.jobs.ports.Executor of `POST /v1/content`. A tenant's settings are those of the moment it runs."""

    def __init__(self, content: ContentPort, tenants: TenantLookup, defaults: AgentConfig) -> None:
        self._content = content
        self._tenants = tenants
        self._defaults = defaults

    async def execute(self, order: Order) -> Answer:
        """See Executor.

        Raises:
            NotFound: this node has no such route to carry orders out.
            NotAllowed: the tenant is gone.
            InvalidBrief: the brief breaks a rule of the tenant's present settings.
            EngineError: generation failed.
        """
        if order.route != CONTENT_ROUTE:
            raise NotFound(f"this node carries out orders of {CONTENT_ROUTE}, got one of {order.route}")
        tenant = self._tenants.get(order.tenant)
        if tenant is None:
            raise NotAllowed(f"the tenant {order.tenant} is not served by this node any more")
        request = ContentRequest.model_validate_json(order.body)
        work = ContentOrder.of(request, tenant, self._defaults, order.request_id)
        return await work.carry_out(self._content, wait_s=order.wait_s)

    def failure(self, order: Order, error: Exception) -> Answer:
        """See Executor."""
        problem = problem_of(error, instance=order.route, request_id=order.request_id, field_errors=broken_rules(error))
        headers = {} if problem.retry_after is None else {"Retry-After": str(problem.retry_after)}
        return Answer(problem.status, problem.model_dump_json(exclude_none=True), MEDIA_TYPE, headers)
