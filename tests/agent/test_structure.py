"""JSON Schemas that are taken, replies that are checked, and the prose in them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import InvalidBrief, SchemaNotMet
from agent.structure import MAX_SCHEMA_BYTES, prose_of, read_reply, read_schema

PRODUCT: dict[str, Any] = {
    "type": "object",
    "properties": {"title": {"type": "string", "maxLength": 9}, "pattern": {"$ref": "#/$defs/code"}},
    "required": ["title"],
    "$defs": {"code": {"type": "string", "pattern": "^[a-z]+$"}},
}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


def test_a_schema_is_kept_as_compact_json() -> None:
    """Names of the caller's own may be keywords' names; key order stays, since it is the order that is written in."""
    assert json.loads(read_schema(PRODUCT)) == PRODUCT
    assert read_schema({"type": "string", "maxLength": 3}) == '{"type":"string","maxLength":3}'


@pytest.mark.parametrize(
    ("schema", "field", "rule"),
    [
        ({"type": "strng"}, "schema.type", "must be a JSON Schema"),
        ({"properties": {"a": {"minimum": "x"}}}, "schema.properties.a.minimum", "must be a JSON Schema"),
        ({"enum": ["x" * MAX_SCHEMA_BYTES]}, "schema", "must be at most 16384 bytes of JSON, got 16397"),
        (nested(16), "schema", "must nest at most 16 levels deep, got more"),
        ({"$ref": "https://example.org/schema"}, "schema", "$ref must point into the schema"),
        ({"properties": {"a": {"$ref": "#/$defs/b"}}}, "schema", "$ref must point into the schema"),
        ({"const": "\ud800"}, "schema", "must be JSON: finite numbers and valid Unicode text"),
        ({"maximum": float("nan")}, "schema", "must be JSON: finite numbers and valid Unicode text"),
        ({"$ref": "#"}, "schema", "$ref must not lead back to itself, got '#'"),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
            "schema",
            "$ref must not lead back to itself",
        ),
        ({"pattern": "["}, "schema.pattern", "must be a JSON Schema"),
        ({"patternProperties": {"a": {}}}, "schema", "must not use patternProperties"),
        ({"properties": {"a": {"$dynamicRef": "#b"}}}, "schema", "must not use $dynamicRef"),
    ],
)
def test_what_cannot_be_decoded_or_checked_is_refused(schema: dict[str, Any], field: str, rule: str) -> None:
    """By name of the rule, before anything is generated. Around the value are {"enum":["…"]}, 10 + 3 characters."""
    with pytest.raises(InvalidBrief) as caught:
        read_schema(schema)
    assert caught.value.field == field
    assert rule in caught.value.message


def test_fifteen_levels_inside_a_schema_fit() -> None:
    """Sixteen levels are the schema's own and fifteen nested ones."""
    assert read_schema(nested(15))


def test_a_property_may_be_called_like_a_refused_keyword() -> None:
    """Names under `properties` are data."""
    assert read_schema({"properties": {"$id": {"type": "string"}, "patternProperties": {"type": "string"}}})


def test_a_reply_that_fits_is_read() -> None:
    """The data comes back as JSON values."""
    assert read_reply('{"title": "Brot", "pattern": "abc"}', read_schema(PRODUCT)) == {
        "title": "Brot",
        "pattern": "abc",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"title": "Br', "the reply must be JSON, got 13 characters that are not"),
        ('{"title": "Brotkrümel"}', "the reply must fit the schema, and title breaks its rule 'maxLength'"),
        ('{"title": "Brot", "pattern": "A"}', "the reply must fit the schema, and pattern breaks its rule 'pattern'"),
        ("[]", "the reply must fit the schema, and the reply breaks its rule 'type'"),
        ("[" * 9999, "the reply must be JSON, got 9999 characters that are not"),
    ],
)
def test_a_reply_that_does_not_fit_is_an_error(text: str, message: str) -> None:
    """It names the place and the rule, and quotes none of the reply."""
    with pytest.raises(SchemaNotMet, match=message.replace("(", r"\(")):
        read_reply(text, read_schema(PRODUCT))


def test_control_characters_that_decoding_lets_pass_are_read() -> None:
    """JSON wants them escaped; the engine writes them as they are, in strings with a bound of length."""
    assert read_reply('{"title": "a\tb\x05"}', read_schema(PRODUCT)) == {"title": "a\tb\x05"}


@pytest.mark.parametrize(
    "schema",
    [{"anyOf": [{"$ref": "#"}]}, {"type": "string", "pattern": "^(a|aa)+$"}],
    ids=["endless reference", "endless pattern"],
)
def test_a_check_that_would_never_end_is_an_error(schema: dict[str, Any]) -> None:
    """A schema that refers to itself, or a pattern that backtracks for ever, does not hold the node."""
    with pytest.raises(SchemaNotMet):
        read_reply(json.dumps("a" * 60 + "b"), read_schema(schema))


def test_prose_is_the_strings_that_are_no_keys() -> None:
    """Everything else is a line break, so that spans stay; escapes are blanks."""
    #             0123456789012345678901234567890123
    text = r'{"titel": "Gut\n so", "n": [1, "zwei'
    masked = prose_of(text)
    assert len(masked) == len(text)
    assert masked.split("\n") == [*[""] * 11, "Gut   so", *[""] * 12, "zwei"]


def test_prose_of_what_is_no_json_is_itself() -> None:
    """A model that ignores the form is judged by what it wrote."""
    assert prose_of('Sie sagte "ja": gern.') == 'Sie sagte "ja": gern.'


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_spans_of_prose_fit_the_reply(data: object) -> None:
    """Whatever the JSON: as long as before, and every letter that is left stands where it stood."""
    text = json.dumps(data, ensure_ascii=False)
    masked = prose_of(text)
    assert len(masked) == len(text)
    assert all(new in (old, "\n", " ") for old, new in zip(text, masked, strict=True))
