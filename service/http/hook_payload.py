"""The payload of an inbound hook's call: JSON, or a form as an object of texts."""

import json
from collections.abc import Iterable
from email.message import Message
from typing import cast
from urllib.parse import unquote_to_bytes

from fastapi import HTTPException
from pydantic import JsonValue
from starlette.exceptions import HTTPException as FrameworkError
from starlette.requests import Request

from agent.errors import InvalidInput
from service.http.validation import shown_name

MAX_FORM_FIELDS = 200
_URLENCODED, _MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
_JSON = frozenset({"", "application/json", "text/json", "text/plain"})
"""Some platforms send JSON without saying so."""


async def hook_payload(request: Request) -> JsonValue:
    """The payload: an object or a list.

    Raises:
        InvalidInput: the body is not what it is declared as, or neither an object nor a list.
        HTTPException: 415 for a body that is declared as something else.
    """
    declared = request.headers.get("content-type", "")
    media_type = declared.split(";", 1)[0].strip().lower()
    if media_type == _URLENCODED:
        return _object(_urlencoded(await request.body(), _charset(declared)))
    if media_type == _MULTIPART:
        return _object(await _multipart(request))
    if media_type in _JSON or media_type.endswith("+json"):
        return _json(await request.body())
    raise HTTPException(415, f"send JSON or a form, got {media_type[:80]!r}")


def _urlencoded(body: bytes, charset: str) -> list[tuple[str, str]]:
    """The fields of a form, by https://url.spec.whatwg.org/#urlencoded-parsing, but in any charset, and strictly.

    Starlette reads bytes that are not percent-encoded, as curl sends them, as Latin-1.

    Raises:
        InvalidInput: too many fields, or bytes that are no text in ``charset``.
    """
    parts = [part for part in body.split(b"&") if part]
    if len(parts) > MAX_FORM_FIELDS:
        raise InvalidInput("", f"the form must have at most {MAX_FORM_FIELDS} fields, got {len(parts)}")
    try:
        pairs = [part.replace(b"+", b" ").partition(b"=") for part in parts]
        return [
            (unquote_to_bytes(name).decode(charset), unquote_to_bytes(value).decode(charset))
            for name, _, value in pairs
        ]
    except (LookupError, UnicodeError) as error:
        raise InvalidInput(
            "",
            f"the form must be text in {charset[:40]}, got bytes that are none; send UTF-8, or name the charset in the"
            " Content-Type",
        ) from error


def _charset(declared: str) -> str:
    header = Message()
    header["content-type"] = declared
    return header.get_content_charset("utf-8")


async def _multipart(request: Request) -> list[tuple[str, str]]:
    try:
        async with request.form(max_files=MAX_FORM_FIELDS, max_fields=MAX_FORM_FIELDS) as form:
            if files := [name for name, value in form.multi_items() if not isinstance(value, str)]:
                raise InvalidInput("", f"the form must hold texts only, got a file in {shown_name(files[0])}")
            return [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
    except FrameworkError as error:
        if error.status_code != 400:
            raise
        raise InvalidInput("", f"the form cannot be read: {error.detail}") from error


def _object(fields: Iterable[tuple[str, str]]) -> JsonValue:
    """The fields by name; one that comes more than once is a list."""
    payload: dict[str, JsonValue] = {}
    for name, value in fields:
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
    except UnicodeDecodeError as error:
        raise InvalidInput("", "the body must be in UTF-8, got bytes that are none") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput("", "the body must be JSON, or a form that is declared as one, got neither") from error
    if not isinstance(payload, dict | list):
        raise InvalidInput("", "the body must be a JSON object or list, got a single value")
    return cast("JsonValue", payload)


def _refuse_constant(name: str) -> None:
    raise ValueError(name)
