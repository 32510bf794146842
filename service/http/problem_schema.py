"""A problem document of RFC 9457, for the routes that send it and the client that reads it. No FastAPI in here."""

from pydantic import BaseModel, ConfigDict, Field

MEDIA_TYPE = "application/problem+json"
MAX_DETAIL_CHARS = 1024
"""Make.com cuts messages after so many characters."""


class FieldError(BaseModel):
    """One rule that the request breaks."""

    field: str = Field(description="Dotted path of what to change; empty for the body as a whole.")
    message: str = Field(description="The rule, then what came.")


class Problem(BaseModel):
    """An error as a problem document of RFC 9457."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:coloq:problem:invalid_request",
                    "title": "The request breaks a rule",
                    "status": 422,
                    "detail": "max_tokens must be between 1 and 256, got 9000",
                    "instance": "/v1/content",
                    "code": "invalid_request",
                    "request_id": "req_0u2Cq4lJm3Tn9bX7aVd5Ew",
                    "errors": [{"field": "max_tokens", "message": "max_tokens must be between 1 and 256, got 9000"}],
                }
            ]
        }
    )

    type: str = Field(description="URN that identifies the kind of problem.")
    title: str = Field(description="The kind of problem in words; the same for every occurrence.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(max_length=MAX_DETAIL_CHARS, description="What broke this time, and what to do next.")
    instance: str = Field(description="Path of the request.")
    code: str = Field(description="Short stable name of the kind of problem, for branches in a scenario.")
    request_id: str = Field(description="The request's id; quote it when you ask for help.")
    retry_after: int | None = Field(default=None, description="Seconds to wait before the same request may succeed.")
    limit: str | None = Field(default=None, description="The limit that is reached, such as `requests_per_minute`.")
    running_id: str | None = Field(default=None, description="What stands in the way, such as the running tuning run.")
    errors: list[FieldError] | None = Field(default=None, description="Every broken rule, when there are several.")


def rule_message(field: str, message: str) -> str:
    """`max_tokens` and `must be ...` as one sentence; a message that stands by itself follows a colon."""
    if not field:
        return message
    joint = " " if message.split(" ", 1)[0] in {"must", "is", "has", "needs"} else ": "
    return f"{field}{joint}{message}"
