"""Builds the HTTP app of a node. Everything it needs is passed in; nothing is kept at module level."""

from collections.abc import Sequence
from enum import Enum

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from service.config import NodeConfig
from service.http import (
    admin,
    admin_policies,
    admin_requests,
    admin_reward_models,
    admin_rewards,
    admin_tenants,
    content,
    events,
    feedback,
    handlers,
    health,
    hooks,
    hooks_config,
    jobs,
    tenant_keys,
    webhooks,
)
from service.http.middleware import AccessLog, BodyLimit, Boundary, HeadAsGet, RequestContext
from service.http.openai import routes as openai
from service.http.openapi import DocumentedApp, operation_id, problem_codes
from service.http.ports import Authenticator, NodePorts, RequestMetrics
from service.http.state import AppParts

API_VERSION = "1"


class Surface(Enum):
    """Which of the routes an app has; probes are on each."""

    ALL = "all"
    TENANTS = "tenants"
    """Everything but `/admin` and `/metrics`."""
    OPERATOR = "operator"
    """`/admin` and `/metrics`."""

    def has(self, path: str) -> bool:
        """Whether a route of this path belongs to it."""
        if self is Surface.ALL or path in _EVERYWHERE:
            return True
        return (path == "/metrics" or path.startswith("/admin/")) == (self is Surface.OPERATOR)


_EVERYWHERE = frozenset({"/healthz", "/readyz", "/openapi.json"})


def create_app(
    node: NodePorts,
    auth: Authenticator,
    config: NodeConfig,
    metrics: RequestMetrics,
    surface: Surface = Surface.ALL,
    routes: Sequence[BaseRoute] | None = None,
) -> FastAPI:
    """The app that serves one node. It starts and stops nothing: the node's life is its owner's.

    Args:
        routes: those of another app, which know nothing of its node; None makes them, the longest part of the work.
    """
    app = DocumentedApp(
        title="Coloq",
        version=API_VERSION,
        summary="Content in the tenant's language, from a model that learns from what it answered.",
        description=f"Errors are problem documents of RFC 9457; branch on `code`.\n\n{problem_codes()}\n",
        docs_url=None,  # Swagger UI and ReDoc load scripts from a CDN; a node may have no way out
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=operation_id,
        webhooks=events.event_router(),
        middleware=[
            Middleware(HeadAsGet),
            Middleware(RequestContext),
            Middleware(AccessLog, metrics=metrics),
            Middleware(Boundary),
            Middleware(BodyLimit, max_body_bytes=config.server.max_body_bytes, timeout_s=config.server.body_timeout_s),
        ],
    )
    app.state.parts = AppParts(node=node, auth=auth, config=config, metrics=metrics)
    handlers.install(app)
    if routes is None:
        _include_routers(app)
        routes = app.router.routes
    app.router.routes = [route for route in routes if surface.has(getattr(route, "path", ""))]
    return app


def _include_routers(app: FastAPI) -> None:
    tenants = (content.router, openai.router, jobs.router, tenant_keys.router)
    admins = (admin.router, admin_policies.router, admin_reward_models.router, admin_tenants.router)
    for router in (*tenants, *admins, health.router):
        app.include_router(router)
    for router in (webhooks.router, hooks_config.router, hooks.router):
        app.include_router(router)
    for router in (feedback.router, admin_requests.router, admin_rewards.router):
        app.include_router(router)
