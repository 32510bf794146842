"""From a platform's payload to the fields of a brief, by a mapping that was checked when it was stored.

    {"kind": "create", "language": {"from": "lang", "default": "de"}, "text": {"from": "join(': ', [title, body])"}}

A value is a constant, or an object with `from`, a JMESPath expression (https://jmespath.org) over the payload, and
perhaps a `default` for when it finds nothing. Payloads of forms are texts, so a text becomes a number or a list where
the brief wants one. Knows a brief only as a pydantic model's fields, by the names that callers give them.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, get_args

from jmespath.exceptions import JMESPathError, JMESPathTypeError
from jmespath.parser import ParsedResult
from pydantic import BaseModel, JsonValue

from agent.errors import InvalidInput
from service.webhooks.expression import compiled

_SEPARATORS = re.compile(r"[,;\n]")
_EXPRESSION_KEYS = {"from", "default"}


@dataclass(frozen=True, slots=True)
class _Extraction:
    """A value that is taken from the payload."""

    expression: ParsedResult
    default: JsonValue


@dataclass(frozen=True, slots=True)
class _Constant:
    value: JsonValue


class PayloadMapping:
    """A checked mapping to the fields of ``model``."""

    def __init__(self, raw: Mapping[str, JsonValue], model: type[BaseModel]) -> None:
        """Check a mapping.

        Raises:
            InvalidInput: a field that the model does not have, or an expression that is none; the field is
                ``mapping.<field>``.
        """
        self._fields = {info.alias or name: info for name, info in model.model_fields.items()}
        self._sources = {name: self._source(name, value) for name, value in raw.items()}

    def apply(self, payload: JsonValue) -> dict[str, JsonValue]:
        """The fields that a payload gives; those for which it has nothing are left out.

        Raises:
            InvalidInput: an expression cannot be applied to this payload.
        """
        found = {name: self._value(name, source, payload) for name, source in self._sources.items()}
        return {name: value for name, value in found.items() if value is not None}

    def _source(self, name: str, value: JsonValue) -> _Extraction | _Constant:
        if name not in self._fields:
            near = difflib.get_close_matches(name, self._fields, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known fields are {', '.join(sorted(self._fields))}"
            raise InvalidInput(f"mapping.{name[:60]}", f"is not a field of a brief; {hint}")
        if not isinstance(value, dict) or "from" not in value:
            return _Constant(value)
        if unknown := value.keys() - _EXPRESSION_KEYS:
            raise InvalidInput(
                f"mapping.{name}", f"has `from` and perhaps `default`, got also {sorted(unknown)[0][:60]!r}"
            )
        return _Extraction(_compiled(name, value["from"]), value.get("default"))

    def _value(self, name: str, source: _Extraction | _Constant, payload: JsonValue) -> JsonValue:
        if isinstance(source, _Constant):
            return source.value
        try:
            found = source.expression.search(payload)
        except (JMESPathError, TypeError, ValueError, RecursionError) as error:
            raise InvalidInput(f"mapping.{name}", f"cannot be applied to this payload: {_reason(error)}") from error
        if found is None or found == "":
            found = source.default
        return _fitted(found, _types_of(self._fields[name].annotation))


def _reason(error: Exception) -> str:
    """What an expression did not take, and what takes it."""
    reason = str(error)[:200] or type(error).__name__
    match error:
        case JMESPathTypeError(current_value=None):
            return f"{reason}; the payload lacks a field that it needs, in whose place not_null(field, '') has a text"
        case JMESPathTypeError(current_value=int() | float()):
            return f"{reason}; to_string(field) makes a text of a number"
    return reason


def _compiled(name: str, expression: JsonValue) -> ParsedResult:
    try:
        return compiled(expression)
    except ValueError as error:
        raise InvalidInput(f"mapping.{name}", str(error)) from error


def _types_of(annotation: Any) -> frozenset[type]:
    """The classes in a field's annotation: of ``list[str] | None`` list, str and NoneType."""
    parts = get_args(annotation)
    origin = getattr(annotation, "__origin__", annotation)
    own = frozenset({origin}) if isinstance(origin, type) else frozenset()
    return own.union(*(_types_of(part) for part in parts))


def _fitted(value: JsonValue, types: frozenset[type]) -> JsonValue:
    """A text as a list and a number as a text, where the field takes nothing else."""
    if isinstance(value, str) and list in types:
        return [part.strip() for part in _SEPARATORS.split(value) if part.strip()]
    takes_text = any(issubclass(item, str | Enum) for item in types) and list not in types
    takes_number = not types.isdisjoint({int, float})
    if isinstance(value, int | float) and not isinstance(value, bool) and takes_text and not takes_number:
        return str(value)
    return value
