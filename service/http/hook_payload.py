"""The payload of an inbound hook's call: JSON, or a form as an object of texts."""

import json
from typing import cast

from fastapi import HTTPException
from pydantic import JsonValue
from starlette.exceptions import HTTPException as FrameworkError
from starlette.requests import Request

from agent.errors import InvalidInput

MAX_FORM_FIELDS = 200
_FORMS = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})
_JSON = frozenset({"", "application/json", "text/json", "text/plain"})
"""Some platforms send JSON without saying so."""


async def hook_payload(request: Request) -> JsonValue:
    """The payload: an object or a list.

    Raises:
        InvalidInput: the body is not what it is declared as, or neither an object nor a list.
        HTTPException: 415 for a body that is declared as something else.
    """
    media_type = request.headers.get("content-type", "").split(";", 1)[0].strip().lower()
    if media_type in _FORMS:
        return await _form(request)
    if media_type in _JSON or media_type.endswith("+json"):
        return _json(await request.body())
    raise HTTPException(415, f"send JSON or a form, got {media_type[:80]!r}")


async def _form(request: Request) -> JsonValue:
    try:
        async with request.form(max_files=0, max_fields=MAX_FORM_FIELDS) as form:
            items = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
    except FrameworkError as error:
        if error.status_code != 400:
            raise
        raise InvalidInput("", f"the form cannot be read: {error.detail}") from error
    payload: dict[str, JsonValue] = {}
    for name, value in items:
        if name not in payload:
            payload[name] = value
        elif isinstance(earlier := payload[name], list):
            earlier.append(value)
        else:
            payload[name] = [earlier, value]
    return payload


def _json(body: bytes) -> JsonValue:
    try:
        payload = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("", "the body must be JSON, or a form that is declared as one, got neither") from error
    if not isinstance(payload, dict | list):
        raise InvalidInput("", "the body must be a JSON object or list, got a single value")
    return cast("JsonValue", payload)


def _refuse_constant(name: str) -> None:
    raise ValueError(name)
