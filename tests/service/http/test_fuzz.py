"""Schemathesis against a live app: whatever fits the OpenAPI document, and much that does not, is answered as it says.

The node's agents are real, its engine is scripted. Bounded: so many requests for each operation and way of generating.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from service.config import NodeConfig
from service.http.agent_node import AgentNode
from service.http.app import create_app
from service.http.document import openapi_document
from service.http.fakes import FakeMetrics, served
from tests.service.http.conftest import ACME, AUTH

BOUNDED = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
BEYOND_SCHEMA: list[schemathesis.CheckFunction] = [positive_data_acceptance]
"""Rules that a JSON Schema cannot state (the tenant's languages, what a kind needs) refuse what fits the document."""

TOO_LARGE = 413

KEPT: dict[str, dict[str, Any]] = {
    "/v1/content": dict.fromkeys(
        "languages variables source_language alternatives schema n best_of max_tokens callback_url".split()
    )
    | {"language": "en", "instructions": "A bell.", "text": "A bell."},
    "/v1/chat/completions": dict.fromkeys(
        """
        tools functions tool_choice function_call audio moderation web_search_options logit_bias presence_penalty
        frequency_penalty modalities top_logprobs stream_options max_tokens max_completion_tokens metadata
        response_format
        """.split()
    )
    | {"model": "coloq", "messages": [{"role": "user", "content": "A bell."}]},
}
"""What makes a generated body keep those rules."""


def operations(*, with_input: bool = False) -> list[tuple[str, str]]:
    return [
        (path, method)
        for path, item in openapi_document()["paths"].items()
        for method, operation in item.items()
        if not with_input or operation.get("requestBody") or operation.get("parameters")
    ]


@pytest.fixture(scope="module")
def schema() -> Iterator[schemathesis.BaseSchema]:
    """The document of an app behind a socket, as the app serves it."""
    app = create_app(AgentNode([ACME]), AUTH, NodeConfig(), FakeMetrics())
    with served(app) as url:
        yield schemathesis.openapi.from_url(f"{url}/openapi.json")


def headers(path: str) -> dict[str, str]:
    return {"Authorization": "Bearer admin-key" if path.startswith("/admin") else "Bearer tenant-key"}


@pytest.mark.parametrize(("path", "method"), operations())
def test_what_fits_the_document_is_answered_as_it_says(schema: schemathesis.BaseSchema, path: str, method: str) -> None:
    """No server error, and no undocumented status, header, media type or body."""

    @BOUNDED
    @given(case=schema[path][method].as_strategy())
    def answers(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(headers=headers(path), excluded_checks=BEYOND_SCHEMA)

    answers()


@pytest.mark.parametrize(("path", "method"), operations(with_input=True))
def test_what_does_not_fit_the_document_is_refused(schema: schemathesis.BaseSchema, path: str, method: str) -> None:
    """With a documented status of the 400s, never as a server error, and never as if it had been understood."""

    @BOUNDED
    @given(case=schema[path][method].as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def answers(case: schemathesis.Case[Any]) -> None:
        response = case.call(headers=headers(path))
        if response.status_code != TOO_LARGE:  # refused before it is looked at; schemathesis wants another status
            case.validate_response(response)

    answers()


@pytest.mark.parametrize("path", KEPT)
def test_what_keeps_every_rule_is_served(schema: schemathesis.BaseSchema, path: str) -> None:
    """Bodies of any other fields get 200, streamed or not, and the documented body."""
    statuses = set()

    @BOUNDED
    @given(case=schema[path]["post"].as_strategy())
    def answers(case: schemathesis.Case[Any]) -> None:
        bounds = {"min_words": 1, "max_words": 9} if path == "/v1/content" else {}
        assert isinstance(case.body, dict)
        case.body = {**case.body, **KEPT[path], **bounds}
        for name in ("X-Language", "Prefer", "Idempotency-Key", "X-Idempotency-Mode"):
            case.headers.pop(name, None)
        statuses.add(case.call_and_validate(headers=headers(path)).status_code)

    answers()
    assert statuses == {200}
