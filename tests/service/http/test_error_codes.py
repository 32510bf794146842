"""The catalogue of error codes: what is documented, what the table holds and what callers get are the same."""

import inspect
from pathlib import Path

import httpx
import pytest
from fastapi.exceptions import RequestValidationError

from agent import errors
from service.http.disconnect import ClientGone
from service.http.fakes import FakeNode
from service.http.openapi import problem_codes
from service.http.problems import ROWS, STATUS_ROWS, row_of

GUIDE = Path(__file__).parents[3] / "deploy" / "PLATFORMS.md"
BRIEF = {"kind": "create", "language": "de", "instructions": "Eine Klingel."}
OF_THE_FRAMEWORK = {Exception, TimeoutError, RequestValidationError, ClientGone}
"""Rows of classes that are not ours; those of ours are raised one by one."""
OF_THE_CONNECTION = {"request_timeout", "headers_too_large"}
"""Answered before there is a request; test_middleware and test_protocol provoke them."""


def raised() -> list[Exception]:
    """One error of each class of the table that a handler may raise."""
    return [RuntimeError("a defect"), TimeoutError(), *(_made(cls) for cls in ROWS if cls not in OF_THE_FRAMEWORK)]


def _made(cls: type[Exception]) -> Exception:
    if issubclass(cls, errors.LimitReached):
        return cls("it is 1, and used up", limit="requests_per_minute", retry_after_s=2.0)
    return cls("field", "must be so") if issubclass(cls, errors.InvalidInput) else cls("this is why")


def test_the_guide_has_the_catalogue() -> None:
    """deploy/PLATFORMS.md lists every code with its status and what to do, as the OpenAPI document does."""
    assert problem_codes() in GUIDE.read_text(encoding="utf-8")


@pytest.mark.parametrize("error", raised(), ids=lambda error: type(error).__name__)
async def test_a_caller_reads_the_code_of_what_was_raised(
    client: httpx.AsyncClient, node: FakeNode, tenant_key: dict[str, str], error: Exception
) -> None:
    """Status, code and title are those of the catalogue, and a wait is said in body and header alike."""
    node.content.error = error
    response = await client.post("/v1/content", headers=tenant_key, json=BRIEF)
    row, problem = row_of(error), response.json()
    assert response.headers["Content-Type"] == "application/problem+json"
    assert (response.status_code, problem["status"]) == (row.status, row.status)
    assert (problem["code"], problem["title"]) == (row.code, row.title)
    assert f"| `{row.code}` | {row.status} |" in problem_codes()
    wait_s = 2 if isinstance(error, errors.LimitReached) else row.retry_after_s
    assert problem.get("retry_after") == wait_s
    assert response.headers.get("Retry-After") == (str(wait_s) if wait_s is not None else None)


async def test_a_caller_reads_the_code_of_what_the_framework_refuses(
    client: httpx.AsyncClient, tenant_key: dict[str, str]
) -> None:
    """A body that is no JSON, too large, not declared or not as the schema says; no such route, no such method."""
    json_type = {"Content-Type": "application/json"}
    responses = [
        await client.post("/v1/content", headers=tenant_key | json_type, content=b"{"),
        await client.post("/v1/content", headers=tenant_key | json_type, content=b'"' + b"x" * 9000 + b'"'),
        await client.post("/v1/content", headers=tenant_key, content=b"{}"),
        await client.post("/v1/content", headers=tenant_key, json={}),
        await client.get("/v1/contents", headers=tenant_key),
        await client.delete("/v1/me", headers=tenant_key),
    ]
    assert [(response.status_code, response.json()["code"]) for response in responses] == [
        (400, "invalid_json"),
        (413, "body_too_large"),
        (415, "unsupported_media_type"),
        (422, "invalid_request"),
        (404, "route_not_found"),
        (405, "method_not_allowed"),
    ]


def test_no_code_is_left_untested() -> None:
    """What the tests above provoke, and what connections are refused with, is the whole table."""
    ours = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.ColoqError)]
    assert set(ROWS) == {*OF_THE_FRAMEWORK, *ours}
    provoked = {row_of(error).code for error in raised()} | {STATUS_ROWS[status].code for status in (400, 404, 405)}
    provoked |= {STATUS_ROWS[status].code for status in (413, 415)} | OF_THE_CONNECTION
    table = {row.code for row in (*ROWS.values(), *STATUS_ROWS.values())}
    assert provoked == table - {ROWS[ClientGone].code}
