"""Exception handlers of the app: each answers with the problem of its exception."""

import difflib
from collections.abc import Iterator
from urllib.parse import quote

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agent.errors import ColoqError
from service.http.disconnect import ClientGone
from service.http.openai.errors import ROUTES_HINT, speaks_openai
from service.http.problem_schema import FieldError
from service.http.problems import broken_rules, problem_of, problem_response, row_of
from service.http.state import request_id_of
from service.http.validation import field_errors

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def install(app: FastAPI) -> None:
    """Register the handlers. What none of them takes, `middleware.Boundary` answers."""
    app.add_exception_handler(ColoqError, on_error)
    app.add_exception_handler(TimeoutError, on_error)
    app.add_exception_handler(ClientGone, on_client_gone)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http_exception)


async def on_error(request: Request, error: Exception) -> Response:
    """An error that this product raised on purpose."""
    log_failure(error)
    return _respond(request, error, fields=broken_rules(error))


def log_failure(error: Exception) -> None:
    """Log an error of the node's own; a caller's mistake is not logged. Only our own messages are known to quote
    nobody."""
    if row_of(error).status < 500:
        return
    cause = type(error.__cause__).__name__ if error.__cause__ is not None else None
    reason = str(error) if isinstance(error, ColoqError) else ""
    log.error("request_failed", error=type(error).__name__, reason=reason, cause=cause)


async def on_client_gone(request: Request, error: Exception) -> Response:
    """Nobody reads this response; its status is for the metrics."""
    return Response(status_code=row_of(error).status)


async def on_invalid(request: Request, error: Exception) -> Response:
    """The request does not fit its model."""
    assert isinstance(error, RequestValidationError)
    found = list(error.errors())
    if any(item["type"] == "json_invalid" for item in found):
        return _respond(request, HTTPException(400), detail=_json_detail(found[0]))
    fields = field_errors(found, _body_model(request), error.body)
    return _respond(request, error, detail="; ".join(field.message for field in fields), fields=fields)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """What the framework refuses: unknown route, wrong method, unreadable or oversized body, media type."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    detail = error.detail
    if error.status_code == 400:
        detail = "the body must be JSON in UTF-8, got something that cannot be read as such"
    elif error.status_code == 404:
        detail = _no_route(request)
    elif error.status_code == 405:
        allowed = ", ".join(sorted(_methods(request)))
        headers["Allow"] = allowed
        detail = f"this route takes {allowed}, got {request.method[:20]}"
    return _respond(request, error, detail=detail, headers=headers)


def _respond(
    request: Request,
    error: Exception,
    *,
    detail: str | None = None,
    fields: list[FieldError] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    problem = problem_of(
        error,
        instance=path_of(request),
        request_id=request_id_of(request),
        detail=detail,
        field_errors=fields,
    )
    return problem_response(problem, headers)


def path_of(request: Request) -> str:
    """The request's path, percent-encoded."""
    return quote(request.scope["path"], errors="replace")


def _json_detail(found: dict[str, object]) -> str:
    context = found.get("ctx")
    reason = context.get("error") if isinstance(context, dict) else None
    location = found.get("loc")
    position = location[-1] if isinstance(location, tuple) else 0
    rule = f"the body must be JSON, got an error at character {position}: {reason}"
    return f"{rule}. In Make, a Create JSON module builds a valid one"


def _body_model(request: Request) -> type[BaseModel] | None:
    route = request.scope.get("route")
    field = route.body_field if isinstance(route, APIRoute) else None
    annotation = field.field_info.annotation if field is not None else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _routes(request: Request) -> Iterator[Route]:
    return (route for route in request.app.routes if isinstance(route, Route))


def _no_route(request: Request) -> str:
    if speaks_openai(path_of(request)):
        return f"there is no route at this path; {ROUTES_HINT}"
    paths = sorted({route.path for route in _routes(request)})
    nearest = difflib.get_close_matches(path_of(request)[:200], paths, n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else "GET /openapi.json lists every route"
    return f"there is no route at this path; {hint}"


def _methods(request: Request) -> set[str]:
    path = request.scope["path"]
    return {method for route in _routes(request) if route.path_regex.match(path) for method in route.methods or ()}
