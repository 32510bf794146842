"""An app of fakes, and a client of it."""

from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from fastapi import FastAPI

from agent.config import AgentConfig, LanguageSettings, TenantSettings
from service.config import NodeConfig, ServerConfig
from service.http.agent_node import AgentNode
from service.http.app import create_app
from service.http.fakes import FakeAuthenticator, FakeMetrics, FakeNode
from service.http.ports import Authenticator, NodePorts, RequestMetrics
from service.tenants import Tenants

BuildApp = Callable[[NodePorts, Authenticator, NodeConfig, RequestMetrics], FastAPI]
"""`create_app` that takes a fifth of its time."""


@pytest.fixture
def acme() -> TenantSettings:
    return TenantSettings(
        id="acme", languages={"de": LanguageSettings(brand_terms=("Klingelo",)), "en": LanguageSettings()}
    )


@pytest.fixture
def tenants(acme: TenantSettings) -> dict[str, TenantSettings]:
    """Tenants by their key."""
    return {"tenant-key": acme, "other-key": acme.model_copy(update={"id": "globex"})}


@pytest.fixture
def node(config: NodeConfig, tenants: dict[str, TenantSettings]) -> FakeNode:
    return FakeNode(config=config, tenants=Tenants.of(tenants.values()))


@pytest.fixture
def metrics() -> FakeMetrics:
    return FakeMetrics()


@pytest.fixture
def config() -> NodeConfig:
    return NodeConfig(server=ServerConfig(max_body_bytes=2048), agent=AgentConfig(hold_s=0.2, temperature=0.5))


ACME = TenantSettings(
    id="acme", languages={"de": LanguageSettings(brand_terms=("Klingelo",)), "en": LanguageSettings()}
)
AUTH = FakeAuthenticator({"tenant-key": ACME}, "admin-key")


@pytest.fixture(scope="session")
def first_app() -> FastAPI:
    """The app whose routes and document are those of all others: neither knows a node, and both take long to make."""
    return create_app(FakeNode(), FakeAuthenticator({}), NodeConfig(), FakeMetrics())


@pytest.fixture(scope="session")
def build_app(first_app: FastAPI) -> BuildApp:
    def build(node: NodePorts, auth: Authenticator, config: NodeConfig, metrics: RequestMetrics) -> FastAPI:
        app = create_app(node, auth, config, metrics, routes=first_app.routes)
        app.openapi_schema = first_app.openapi()
        return app

    return build


@pytest.fixture
def app(
    build_app: BuildApp, node: FakeNode, config: NodeConfig, metrics: FakeMetrics, tenants: dict[str, TenantSettings]
) -> FastAPI:
    return build_app(node, FakeAuthenticator(tenants, "admin-key"), config, metrics)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a key."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://node") as client:
        yield client


@pytest.fixture
def agent_node() -> AgentNode:
    """The real agents on a scripted engine."""
    return AgentNode([ACME])


@pytest.fixture
def agent_app(build_app: BuildApp, agent_node: AgentNode, metrics: FakeMetrics) -> FastAPI:
    """An app of the real agents, with the configuration that a node has by default."""
    return build_app(agent_node, AUTH, NodeConfig(), metrics)


@pytest.fixture
async def agent_client(agent_app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a key."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(agent_app), base_url="http://node") as client:
        yield client


@pytest.fixture
def tenant_key() -> dict[str, str]:
    return {"Authorization": "Bearer tenant-key"}


@pytest.fixture
def other_key() -> dict[str, str]:
    """The key of another tenant, globex."""
    return {"Authorization": "Bearer other-key"}


@pytest.fixture
def admin_key() -> dict[str, str]:
    return {"Authorization": "Bearer admin-key"}
