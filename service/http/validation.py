"""What pydantic found wrong with a request, in this product's words: the rule, then what came.

Knows the request's model only through its fields: both bounds of a number come from there, as do the names that an
unknown key is compared with.
"""

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import annotated_types
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from service.http.problem_schema import FieldError

MAX_SHOWN_CHARS = 60
"""Longest part of a rejected value that a message repeats."""
MAX_FIELD_ERRORS = 20
EMPTY_IS_NONE = BeforeValidator(lambda value: None if value == "" else value)
"""Behind the `Query` of a parameter: `?cursor=` is what platforms send of a field that is mapped from nothing."""

_NUMBER_WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "string": "text"}


class Bounds(NamedTuple):
    """Inclusive or exclusive bounds of a number, as words."""

    low: str | None
    high: str | None


def field_errors(
    found: Sequence[Mapping[str, Any]], model: type[BaseModel] | None, body: object = None
) -> list[FieldError]:
    """One message per broken rule, in the order of the body, at most `MAX_FIELD_ERRORS`.

    Args:
        body: what was sent. Paths then hold its own keys and indices, without pydantic's names of a union's members.
    """
    errors = [_field_error(error, model, body) for error in found]
    unique = list({(error.field, error.message): error for error in errors}.values())
    return unique[:MAX_FIELD_ERRORS]


def without_empty_texts(body: object, model: type[BaseModel]) -> object:
    """A body in which null takes the place of empty texts, where ``model`` takes null for the field: that is what
    platforms send for a field that is mapped from an empty cell, whatever its type."""
    if not isinstance(body, Mapping):
        return body
    optional = {info.alias or name for name, info in model.model_fields.items() if not info.is_required()}
    return {name: None if value == "" and name in optional else value for name, value in body.items()}


def _field_error(error: Mapping[str, Any], model: type[BaseModel] | None, body: object) -> FieldError:
    path = _path(error["loc"][1:], body, error["type"])
    field = shown_name(".".join(path))
    if error["type"] == "extra_forbidden":
        return FieldError(field=shown_name(field), message=_unknown_field(field, model))
    return FieldError(field=field, message=f"{field or 'the body'} {_rule(error, _field(path, model))}")


def _path(location: Sequence[str | int], body: object, kind: str) -> list[str]:
    """The parts of a location that are keys or indices of ``body``, and the name of a field that is missing there."""
    if not isinstance(body, Mapping):
        return [str(part) for part in location]
    path: list[str] = []
    inside: Any = body
    for position, part in enumerate(location):
        is_there = (
            part in inside if isinstance(inside, Mapping) else isinstance(inside, list) and part in range(len(inside))
        )
        if is_there:
            inside = inside[part]
        if is_there or (kind == "missing" and position == len(location) - 1):
            path.append(str(part))
    return path or [str(part) for part in location[:1]]


def _rule(error: Mapping[str, Any], info: FieldInfo | None) -> str:
    kind = str(error["type"])
    if kind == "missing":
        return "is required, got nothing"
    return f"{_expectation(kind, error, info)}, got {shown(error.get('input'))}"


def _expectation(kind: str, error: Mapping[str, Any], info: FieldInfo | None) -> str:
    context: Mapping[str, Any] = error.get("ctx") or {}
    word = _NUMBER_WORDS.get(kind.split("_", 1)[0])
    if kind in {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}:
        return _range(kind, context, info)
    if kind in {"string_too_long", "string_too_short"}:
        return _size("character", context)
    if kind in {"too_long", "too_short"}:
        return _size("item", context)
    if kind in {"enum", "literal_error"}:
        return f"must be one of {_names(str(context['expected']))}"
    if kind in {"model_attributes_type", "model_type", "dict_type"}:
        return "must be a JSON object"
    if kind in {"list_type", "tuple_type"}:
        return "must be a list"
    if kind in _TEXTS:
        return _TEXTS[kind](context)
    if word is not None and kind.endswith(("_type", "_parsing", "_from_float", "_size")):
        return f"must be {word}"
    return str(error["msg"]).replace("Input should", "must", 1)


def _names(expected: str) -> str:
    """``'a', 'b' or <Kind.C: 'c'>`` as ``a, b, c``."""
    return re.sub(r"<[^:>]+: ([^>]+)>", r"\1", expected).replace("'", "").replace(" or ", ", ")


_TEXTS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "string_unicode": lambda context: "must be valid Unicode text",
    "string_pattern_mismatch": lambda context: f"must match {context['pattern']}",
    "union_tag_invalid": lambda context: (
        f"must have {_names(context['discriminator'])} one of {_names(context['expected_tags'])}"
    ),
}


def _range(kind: str, context: Mapping[str, Any], info: FieldInfo | None) -> str:
    bounds = _bounds(info)
    if bounds.low is not None and bounds.high is not None:
        return f"must be between {bounds.low} and {bounds.high}"
    limit = next(iter(context.values()))
    words = {
        "greater_than": "more than",
        "greater_than_equal": "at least",
        "less_than": "less than",
        "less_than_equal": "at most",
    }
    return f"must be {words[kind]} {limit:g}"


def _bounds(info: FieldInfo | None) -> Bounds:
    low: str | None = None
    high: str | None = None
    for rule in _constraints(info):
        match rule:
            case annotated_types.Ge(ge=int() | float() as bound):
                low = f"{bound:.10g}"
            case annotated_types.Gt(gt=int() | float() as bound):
                low = f"{bound:.10g} (not included)"
            case annotated_types.Le(le=int() | float() as bound):
                high = f"{bound:.10g}"
            case annotated_types.Lt(lt=int() | float() as bound):
                high = f"{bound:.10g} (not included)"
    return Bounds(low, high)


def _constraints(info: FieldInfo | None) -> list[object]:
    """Constraints on the field itself and, for `Annotated[int, ...] | None`, on the alternatives of its type."""
    if info is None:
        return []
    nested = [rule for part in getattr(info.annotation, "__args__", ()) for rule in getattr(part, "__metadata__", ())]
    flat: list[object] = []
    for rule in (*info.metadata, *nested):
        flat.extend(rule.metadata if isinstance(rule, FieldInfo) else [rule])
    return flat


def _size(unit: str, context: Mapping[str, Any]) -> str:
    words, limit = (
        ("at most", context["max_length"]) if "max_length" in context else ("at least", context["min_length"])
    )
    return f"must have {words} {limit} {unit if limit == 1 else unit + 's'}"


def _field(path: list[str], model: type[BaseModel] | None) -> FieldInfo | None:
    return model.model_fields.get(path[0]) if model is not None and len(path) == 1 else None


def _unknown_field(field: str, model: type[BaseModel] | None) -> str:
    fields = model.model_fields if model is not None else {}
    names = sorted(info.alias or name for name, info in fields.items()) if "." not in field else []
    nearest = difflib.get_close_matches(field, names, n=1)
    if not names:
        return f"unknown field {shown_name(field)}; leave it out"
    hint = f"did you mean {nearest[0]}?" if nearest else f"known fields are {', '.join(names)}"
    return f"unknown field {shown_name(field)}; {hint}"


def shown_name(name: str) -> str:
    """A caller's field name, cut and made safe to send back."""
    return _cut(name).encode("utf-8", "backslashreplace").decode()


def shown(value: object) -> str:
    """A rejected value as JSON, cut: lists and objects are named by their kind, never repeated."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, bytes):
        return "plain bytes"
    if isinstance(value, str) and len(value) > MAX_SHOWN_CHARS:
        return f"{len(value)} characters"
    text = json.dumps(value, ensure_ascii=False, default=lambda item: type(item).__name__)
    return _cut(text).encode("utf-8", "backslashreplace").decode()


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 1] + "…"
