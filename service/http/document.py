"""The OpenAPI document without a node: what `coloq openapi` prints."""

from typing import Any

from service.config import NodeConfig
from service.http.app import create_app
from service.http.fakes import FakeAuthenticator, FakeMetrics, FakeNode


def openapi_document() -> dict[str, Any]:
    """The document that every node of this version serves at `GET /openapi.json`."""
    return create_app(FakeNode(), FakeAuthenticator({}), NodeConfig(), FakeMetrics()).openapi()
