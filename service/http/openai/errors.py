"""Problems in the shape of OpenAI's errors, on the routes that its clients call, also those that are not here: of an
error in another shape a client shows the status alone.

Source: https://platform.openai.com/docs/guides/error-codes and the error classes of the `openai` package. A broken rule
is 400 there, where the node's own routes say 422.
"""

import re
from typing import Any

from pydantic import BaseModel, Field

from service.http.problem_schema import Problem

ROUTES_HINT = (
    "of OpenAI's API this node has POST /v1/chat/completions and GET /v1/models: a client's base URL ends with /v1, and"
    " its Responses API is off"
)
"""What a client that calls another of OpenAI's routes is told."""

_PATHS = re.compile(
    r"(/v1)*/(chat|models|responses|completions|embeddings|images|audio|moderations|assistants|threads|conversations)"
    r"(/.*)?",
    re.DOTALL,
)
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_UNPROCESSABLE, _BAD_REQUEST = 422, 400


class OpenAIErrorDetail(BaseModel):
    """What broke."""

    message: str = Field(description="What broke this time, and what to do next.")
    type: str = Field(description="The kind of error, as OpenAI names them.", examples=["invalid_request_error"])
    param: str | None = Field(description="Dotted path of the field that breaks a rule; null when it is none.")
    code: str | None = Field(description="Short stable name of the kind of problem.")


class OpenAIError(BaseModel):
    """An error in OpenAI's shape."""

    error: OpenAIErrorDetail


def speaks_openai(path: str) -> bool:
    """True for paths whose errors have OpenAI's shape."""
    return _PATHS.fullmatch(path) is not None


def openai_status(status: int) -> int:
    """The status of a problem on these routes."""
    return _BAD_REQUEST if status == _UNPROCESSABLE else status


def openai_error(problem: Problem) -> OpenAIError:
    """A problem as OpenAI's clients expect it."""
    is_callers = problem.status < 500
    return OpenAIError(
        error=OpenAIErrorDetail(
            message=problem.detail,
            type=_TYPES.get(problem.status, "invalid_request_error" if is_callers else "server_error"),
            param=problem.errors[0].field or None if problem.errors else None,
            code="model_not_found" if problem.code == "not_found" else problem.code,
        )
    )


def openai_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for these statuses, each in OpenAI's shape."""
    return {status: {"model": OpenAIError, "description": _DESCRIPTIONS[status]} for status in statuses}


_DESCRIPTIONS = {
    400: "The request breaks a rule; `param` names the field.",
    401: "No key, or one that nobody holds.",
    403: "The key is not for this route.",
    404: "No such model.",
    413: "The body is larger than the node takes.",
    415: "The body is not declared as JSON, or it is compressed.",
    429: "A limit is reached; try again after `Retry-After` seconds.",
    500: "The node failed.",
    503: "Not ready; try again after `Retry-After` seconds.",
    504: "No reply was ready in time.",
}
