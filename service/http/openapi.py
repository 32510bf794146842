"""The OpenAPI document: error responses as problems, operation ids from function names, no pages that load a CDN."""

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema

from service.http.disconnect import ClientGone
from service.http.problem_schema import MEDIA_TYPE, Problem
from service.http.problems import ROWS, STATUS_ROWS

DESCRIPTIONS = {
    400: "The body is not JSON.",
    401: "No key, or one that nobody holds.",
    403: "The key is not for this route.",
    404: "No such thing.",
    409: "Not in the current state.",
    413: "The body is larger than the node takes.",
    415: "The body is not declared as JSON, or it is compressed.",
    422: "The request breaks a rule; `errors` names each field.",
    408: "The request did not come in time.",
    429: "A limit is reached; try again after `Retry-After` seconds.",
    431: "The header fields are larger than the node takes.",
    500: "The node failed.",
    503: "Not ready; try again after `Retry-After` seconds.",
    504: "No reply was ready in time.",
}
_SCHEMAS = "#/components/schemas/{model}"
_REF = {"$ref": _SCHEMAS.format(model=Problem.__name__)}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for these statuses, each a problem."""
    return {
        status: {"description": DESCRIPTIONS[status], "content": {MEDIA_TYPE: {"schema": _REF}}} for status in statuses
    }


def operation_id(route: APIRoute) -> str:
    """The handler's name, which is unique in the app."""
    return route.name


def _drop_frameworks_errors(document: dict[str, Any]) -> None:
    """Routes that answer a broken rule with another status than 422 get one from FastAPI that they never send."""
    for item in document["paths"].values():
        for operation in item.values():
            unprocessable = operation["responses"].get("422", {})
            if "HTTPValidationError" in str(unprocessable):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


def problem_codes() -> str:
    """Every code that a caller may read in a problem, with its status and what to do, as a Markdown table."""
    rows = {row.code: row for row in (*ROWS.values(), *STATUS_ROWS.values()) if row is not ROWS[ClientGone]}
    lines = [f"| `{row.code}` | {row.status} | {row.title}. {row.advice}".rstrip() + " |" for row in rows.values()]
    return "\n".join(["| code | status | what it means |", "| --- | --- | --- |", *sorted(lines)])


_LIMIT_HEADERS = {
    name: {"description": description, "schema": {"type": "string"}}
    for name, description in {
        "RateLimit-Policy": "Each limit with its quota `q` and window `w` in seconds; absent when there is none.",
        "RateLimit": "What remains of each limit, `r`, and the seconds until it is whole again, `t`.",
    }.items()
}


def _describe_limits(document: dict[str, Any]) -> None:
    """Every route that acts for a tenant tells limits and may refuse with 429."""
    operations = [item for path in document["paths"].values() for item in path.values()]
    for operation in operations:
        responses = operation["responses"]
        if {"TenantKey": []} in operation.get("security", []) or "429" in responses:
            responses.setdefault("429", problems(429)[429])
            for status, response in responses.items():
                if status.startswith("2") or status == "429":
                    response.setdefault("headers", {}).update(_LIMIT_HEADERS)


class DocumentedApp(FastAPI):
    """A FastAPI whose document defines the schema that `problems` refers to."""

    def openapi(self) -> dict[str, Any]:
        """The document, made once."""
        if self.openapi_schema is None:
            document = super().openapi()
            _, definitions = models_json_schema(
                [(Problem, "serialization")], ref_template=_REF["$ref"][:-7] + "{model}"
            )
            _describe_limits(document)
            document.setdefault("components", {}).setdefault("schemas", {}).update(definitions["$defs"])
            _drop_frameworks_errors(document)
        return super().openapi()
