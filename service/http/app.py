"""Builds the HTTP app of a node. Everything it needs is passed in; nothing is kept at module level."""

from fastapi import FastAPI
from starlette.middleware import Middleware

from service.config import NodeConfig
from service.http import admin, content, events, handlers, health, hooks, hooks_config, webhooks
from service.http.middleware import AccessLog, BodyLimit, Boundary, RequestContext
from service.http.openapi import DocumentedApp, operation_id
from service.http.ports import Authenticator, NodePorts, RequestMetrics
from service.http.state import AppParts

API_VERSION = "1"


def create_app(node: NodePorts, auth: Authenticator, config: NodeConfig, metrics: RequestMetrics) -> FastAPI:
    """The app that serves one node. It starts and stops nothing: the node's life is its owner's."""
    app = DocumentedApp(
        title="Coloq",
        version=API_VERSION,
        summary="Content in the tenant's language, from a model that learns from what it answered.",
        docs_url=None,  # Swagger UI and ReDoc load scripts from a CDN; a node may have no way out
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=operation_id,
        webhooks=events.event_router(),
        middleware=[
            Middleware(RequestContext),
            Middleware(AccessLog, metrics=metrics),
            Middleware(Boundary),
            Middleware(BodyLimit, max_body_bytes=config.server.max_body_bytes),
        ],
    )
    app.state.parts = AppParts(node=node, auth=auth, config=config, metrics=metrics)
    handlers.install(app)
    for router in (content.router, admin.router, health.router):
        app.include_router(router)
    for router in (webhooks.router, hooks_config.router, hooks.router):
        app.include_router(router)
    return app
