"""Replies as JSON: which schemas are taken, what a reply holds, and which of its text is prose.

    caller's schema ─► read_schema ─► brief and sampling (decoded to fit) ─► read_reply ─► data
                                                                       └──► prose_of ─► language verdict

Keys and punctuation of JSON belong to no language, so the language contract judges the strings in it alone.
"""

import json
import re
from collections.abc import Iterator, Mapping

import jsonschema
import regex
from jsonschema.exceptions import SchemaError
from jsonschema.validators import extend
from pydantic import JsonValue

from agent.errors import InvalidBrief, SchemaNotMet

MAX_SCHEMA_BYTES = 16_384
MAX_SCHEMA_DEPTH = 16
"""Levels of nested objects and lists in a schema, its own included."""
ANY_OBJECT = '{"type":"object"}'
"""The schema of a reply that must be a JSON object and nothing more."""

_PATTERN_TIMEOUT_S = 0.1
_REFUSED = ("$dynamicRef", "$recursiveRef", "$id", "$anchor", "$dynamicAnchor", "patternProperties")
"""Keywords that can name what lies outside of the schema, or that decoding does not know."""
_SCHEMA_MAPS = frozenset(("properties", "$defs", "definitions", "dependentSchemas", "dependentRequired"))
"""Keywords whose keys are names of the caller's own."""
_DATA = frozenset(("const", "enum", "default", "examples"))
"""Keywords whose values are data, not schemas."""


def read_schema(schema: Mapping[str, JsonValue]) -> str:
    """The schema as compact JSON, once it is known to be one that replies can be decoded to and checked against.

    Raises:
        InvalidBrief: too large, too deep, not a JSON Schema (draft 2020-12), or a reference that leads nowhere.
    """
    if _depth(schema) > MAX_SCHEMA_DEPTH:
        raise InvalidBrief("schema", f"must nest at most {MAX_SCHEMA_DEPTH} levels deep, got more")
    try:
        text = json.dumps(schema, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        size_bytes = len(text.encode())
    except ValueError as error:
        raise InvalidBrief("schema", "must be JSON: finite numbers and valid Unicode text") from error
    if size_bytes > MAX_SCHEMA_BYTES:
        raise InvalidBrief("schema", f"must be at most {MAX_SCHEMA_BYTES} bytes of JSON, got {size_bytes}")
    try:
        _Validator.check_schema(schema)
    except SchemaError as error:
        where = ".".join(map(str, error.absolute_path))
        raise InvalidBrief(f"schema.{where}".rstrip("."), f"must be a JSON Schema: {error.message[:200]}") from error
    _check_keywords(schema)
    return text


def read_reply(text: str, schema: str) -> JsonValue:
    """The data of a reply that was decoded to fit ``schema``.

    Raises:
        SchemaNotMet: no JSON, or JSON that breaks the schema. Most often the token limit cut it off.
    """
    try:
        # Of control characters in strings decoding rules out line breaks alone: a tab there is no reason to give up a
        # reply that fits.
        data: JsonValue = json.loads(text, strict=False)
    except (ValueError, RecursionError) as error:
        raise SchemaNotMet(f"the reply must be JSON, got {len(text)} characters that are not") from error
    try:
        problem = next(_Validator(json.loads(schema)).iter_errors(data), None)
    except (RecursionError, TimeoutError) as error:
        raise SchemaNotMet("the reply could not be checked against the schema: it refers to itself for ever") from error
    if problem is not None:
        where = ".".join(map(str, problem.absolute_path)) or "the reply"
        raise SchemaNotMet(f"the reply must fit the schema, and {where} breaks its rule '{problem.validator}'")
    return data


_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"?(\s*:)?', re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{4}|.)", re.DOTALL)


def prose_of(text: str) -> str:
    """JSON with everything but the contents of string values blanked, as long as before, so that spans fit both.

    Strings are separated by line breaks: each is a sentence of its own, at least. Text that is no JSON stays as it is.
    """
    if text.lstrip()[:1] not in ("{", "[", '"'):
        return text
    masked = ["\n"] * len(text)
    for string in _STRING.finditer(text):
        if string[2] is None:
            content = _ESCAPE.sub(lambda escape: " " * len(escape.group()), string[1])
            masked[string.start(1) : string.end(1)] = content
    return "".join(masked)


def _pattern(
    validator: object, pattern: str, instance: object, schema: object
) -> Iterator[jsonschema.exceptions.ValidationError]:
    """The keyword `pattern` with a limit on time: a pattern is the caller's, and one can take longer than the node's
    life to try. Raises TimeoutError."""
    if isinstance(instance, str) and not regex.search(pattern, instance, timeout=_PATTERN_TIMEOUT_S):
        yield jsonschema.exceptions.ValidationError("does not match the pattern")


_Validator = extend(jsonschema.Draft202012Validator, {"pattern": _pattern})


def _depth(value: object) -> int:
    """Levels of nesting, counted without recursion; what lies deeper than the limit is not looked at."""
    level: list[object] = [value]
    for depth in range(MAX_SCHEMA_DEPTH + 1):
        level = [child for item in level for child in _children(item)]
        if not level:
            return depth
    return MAX_SCHEMA_DEPTH + 1


def _children(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, list) else []


def _check_keywords(schema: Mapping[str, JsonValue]) -> None:
    """Raises InvalidBrief for a keyword that is not taken, a pattern that is none, a reference that leads nowhere."""
    for part in _subschemas(schema):
        for keyword in _REFUSED:
            if keyword in part:
                raise InvalidBrief("schema", f"must not use {keyword}")
        _check_pattern(part.get("pattern"))
        reference = part.get("$ref")
        if reference is not None and not _leads_somewhere(reference, schema):
            raise InvalidBrief(
                "schema", f"$ref must point into the schema ('#/$defs/name'), got {str(reference)[:60]!r}"
            )
        if _is_circular(part, schema):
            raise InvalidBrief("schema", f"$ref must not lead back to itself, got {str(reference)[:60]!r}")


def _check_pattern(pattern: object) -> None:
    if not isinstance(pattern, str):
        return
    try:
        regex.compile(pattern)
    except regex.error as error:
        raise InvalidBrief("schema", f"pattern must be a regular expression, got {pattern[:60]!r}: {error}") from error


def _subschemas(schema: object, *, names_are_keys: bool = False) -> Iterator[Mapping[str, JsonValue]]:
    """Every object of a schema that holds keywords; depth is bounded before."""
    if isinstance(schema, list):
        for item in schema:
            yield from _subschemas(item)
    if not isinstance(schema, Mapping):
        return
    if not names_are_keys:
        yield schema
    for key, value in schema.items():
        if names_are_keys or key not in _DATA:
            yield from _subschemas(value, names_are_keys=not names_are_keys and key in _SCHEMA_MAPS)


def _leads_somewhere(reference: object, schema: Mapping[str, JsonValue]) -> bool:
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        return False
    return isinstance(_target(reference, schema), Mapping | bool)


def _target(reference: str, schema: Mapping[str, JsonValue]) -> object:
    target: object = schema
    for step in reference.split("/")[1:]:
        target = target.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(target, Mapping) else None
    return target


def _is_circular(part: object, schema: Mapping[str, JsonValue]) -> bool:
    """True when following one `$ref` after the other comes to a place that it has been at."""
    passed: list[object] = []
    while isinstance(part, Mapping) and isinstance(reference := part.get("$ref"), str):
        passed.append(reference)
        part = _target(reference, schema)
        if len(passed) > len(set(map(str, passed))):
            return True
    return False
