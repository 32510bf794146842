"""From payloads to fields."""

import pytest
from pydantic import JsonValue

from agent.errors import InvalidInput
from service.http.content_schema import ContentRequest
from service.webhooks.mapping import PayloadMapping

PAYLOAD: JsonValue = {"post": {"title": "Klingel", "tags": ["Rad", "Stadt"], "n": 7, "empty": ""}, "lang": "de"}


def applied(mapping: dict[str, JsonValue], payload: JsonValue = PAYLOAD) -> dict[str, JsonValue]:
    return PayloadMapping(mapping, ContentRequest).apply(payload)


def test_constants_and_expressions_give_fields() -> None:
    """A text is a constant, an object with `from` is looked up, JMESPath's functions join texts."""
    assert applied(
        {
            "kind": "create",
            "language": {"from": "lang"},
            "instructions": {"from": "join(': ', ['Text', post.title])"},
            "keywords": {"from": "post.tags"},
            "max_words": 60,
        }
    ) == {
        "kind": "create",
        "language": "de",
        "instructions": "Text: Klingel",
        "keywords": ["Rad", "Stadt"],
        "max_words": 60,
    }


def test_what_is_not_found_takes_the_default_or_is_left_out() -> None:
    """An empty text, as forms send it, counts as not found."""
    assert applied({"language": {"from": "post.missing", "default": "fr"}, "tone": {"from": "post.none"}}) == {
        "language": "fr"
    }
    assert applied({"language": {"from": "post.empty", "default": "fr"}}) == {"language": "fr"}
    assert applied({"tone": None}) == {}


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("keywords", "bell, safety;city\nnight,, ", ["bell", "safety", "city", "night"]),
        ("keywords", ["a,b"], ["a,b"]),
        ("instructions", 7, "7"),
        ("instructions", 1.5, "1.5"),
        ("max_words", "60", "60"),
        ("max_words", 60, 60),
        ("temperature", 0.5, 0.5),
        ("instructions", True, True),  # a slip that the brief's own rules then name
    ],
)
def test_texts_of_forms_fit_the_fields(field: str, value: JsonValue, expected: JsonValue) -> None:
    """Lists from separated texts, texts from numbers; numbers from texts are the model's business."""
    assert applied({field: {"from": "v"}}, {"v": value}) == {field: expected}


def test_every_field_has_the_name_that_callers_give_it() -> None:
    """`register` and `schema`, as in a body of `POST /v1/content`, not the names that Python has for them."""
    fields: dict[str, JsonValue] = {"register": "formal", "schema": {"type": "object"}}
    assert applied({"register": {"from": "how"}, "schema": {"type": "object"}}, {"how": "formal"}) == fields
    for name in ("register_", "json_schema"):
        with pytest.raises(InvalidInput, match="is not a field of a brief"):
            applied({name: "formal"})


def test_a_list_may_be_the_payload() -> None:
    """n8n sends items as a list."""
    assert applied({"text": {"from": "[0].json.text"}}, [{"json": {"text": "a"}}]) == {"text": "a"}


@pytest.mark.parametrize(
    ("mapping", "field", "message"),
    [
        ({"instruction": "x"}, "mapping.instruction", "did you mean instructions?"),
        ({"zzz": "x"}, "mapping.zzz", "known fields are"),
        ({"text": {"from": "a["}}, "mapping.text", "must be a JMESPath expression"),
        ({"text": {"from": "nosuch(a)"}}, "mapping.text", "cannot be applied to this payload: Unknown function"),
        ({"text": {"from": ""}}, "mapping.text", "1 to 300 characters"),
        ({"text": {"from": "a" * 301}}, "mapping.text", "1 to 300 characters"),
        ({"text": {"from": 7}}, "mapping.text", "1 to 300 characters"),
        ({"text": {"from": "a", "defualt": "b"}}, "mapping.text", "'defualt'"),
        ({"text": {"from": "(" * 290}}, "mapping.text", "must be a JMESPath expression"),
    ],
)
def test_a_mapping_that_is_none_is_refused_by_field(mapping: dict[str, JsonValue], field: str, message: str) -> None:
    """When it is stored, or at the latest when it is tried on the example, which happens before it is stored."""
    with pytest.raises(InvalidInput) as refused:
        PayloadMapping(mapping, ContentRequest).apply({"a": "x"})
    assert refused.value.field == field
    assert message in refused.value.message


def test_a_payload_that_an_expression_cannot_take_is_the_callers_fault() -> None:
    """`join` needs texts; a number among them is named with the field."""
    with pytest.raises(InvalidInput, match="cannot be applied to this payload") as refused:
        applied({"text": {"from": "join(' ', [post.title, post.n])"}})
    assert refused.value.field == "mapping.text"


@pytest.mark.parametrize(
    ("expression", "advice", "mended", "text"),
    [
        ("join(': ', ['a', post.sub])", "not_null(field, '')", "join(': ', ['a', not_null(post.sub, '')])", "a: "),
        ("join(': ', ['a', post.n])", "to_string(field)", "join(': ', ['a', to_string(post.n)])", "a: 7"),
    ],
)
def test_an_expression_that_cannot_be_applied_says_what_can(
    expression: str, advice: str, mended: str, text: str
) -> None:
    """A payload without an optional field, or with a number in it, is no reason to look up JMESPath's types."""
    with pytest.raises(InvalidInput) as refused:
        applied({"text": {"from": expression}})
    assert advice in refused.value.message
    assert applied({"text": {"from": mended}}) == {"text": text}


def test_an_object_without_from_is_a_constant() -> None:
    """Fields that take objects can be given one."""
    assert PayloadMapping({"tone": {"a": 1}}, ContentRequest).apply({}) == {"tone": {"a": 1}}
