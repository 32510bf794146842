"""Messages for what does not fit a model."""

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, ValidationError

from service.http.content import ContentRequest
from service.http.validation import MAX_FIELD_ERRORS, field_errors, shown

VALID: dict[str, Any] = {"kind": "create", "language": "de", "instructions": "x"}


def messages(change: object) -> list[tuple[str, str]]:
    body = {**VALID, **change} if isinstance(change, dict) else change
    try:
        ContentRequest.model_validate(body)
    except ValidationError as error:
        found = [{**item, "loc": ("body", *item["loc"])} for item in error.errors()]
        return [(item.field, item.message) for item in field_errors(found, ContentRequest)]
    return []


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"kind": "make"}, "kind", 'kind must be one of create, correct, suggest, got "make"'),
        ({"max_token": 5}, "max_token", "unknown field max_token; did you mean max_tokens?"),
        ({"temperature": 9}, "temperature", "temperature must be between 0 and 2, got 9"),
        ({"top_p": 0}, "top_p", "top_p must be between 0 (not included) and 1, got 0"),
        ({"max_tokens": 0}, "max_tokens", "max_tokens must be at least 1, got 0"),
        ({"max_words": "abc"}, "max_words", 'max_words must be a whole number, got "abc"'),
        ({"seed": 1.5}, "seed", "seed must be a whole number, got 1.5"),
        ({"seed": True, "temperature": "hot"}, "temperature", 'temperature must be a number, got "hot"'),
        ({"text": 5}, "text", "text must be text, got 5"),
        ({"text": ["a", "b"]}, "text", "text must be text, got a list of 2"),
        ({"tone": "x" * 201}, "tone", "tone must have at most 200 characters, got 201 characters"),
        ({"language": "d"}, "language", 'language must have at least 2 characters, got "d"'),
        ({"keywords": "bell"}, "keywords", 'keywords must be a list, got "bell"'),
        ({"keywords": ["a", ""]}, "keywords.1", 'keywords.1 must have at least 1 character, got ""'),
        ({"keywords": ["k"] * 33}, "keywords", "keywords must have at most 32 items, got a list of 33"),
        ({"temperature": float("nan")}, "temperature", "temperature must be a finite number, got NaN"),
        ({"text": "\ud800"}, "text", 'text must be valid Unicode text, got "\\ud800"'),
        ({"kind": None}, "kind", "kind must be one of create, correct, suggest, got null"),
        ([1], "", "the body must be a JSON object, got a list of 1"),
    ],
)
def test_the_rule_then_what_came(change: object, field: str, message: str) -> None:
    """One sentence per broken rule, in the words of the JSON that was sent."""
    assert (field, message) in messages(change)


def test_a_missing_field_is_required() -> None:
    """Every missing field is named, in the model's order."""
    try:
        ContentRequest.model_validate({})
    except ValidationError as error:
        found = [{**item, "loc": ("body", *item["loc"])} for item in error.errors()]
    assert [item.message for item in field_errors(found, ContentRequest)] == [
        "kind is required, got nothing",
        "language is required, got nothing",
    ]


def test_a_field_unlike_any_other_gets_the_list_of_names() -> None:
    """No guess is better than a wild one."""
    ((field, message),) = messages({"zzz": 1})
    assert field == "zzz"
    assert message.startswith("unknown field zzz; known fields are audience, best_of, callback_url, end_user,")


def test_numbers_and_texts_that_mean_the_same_are_taken() -> None:
    """Automation platforms send numbers as text."""
    assert messages({"max_tokens": "64", "temperature": "0.5"}) == []


def test_messages_are_at_most_twenty() -> None:
    """A body of junk does not come back as a page."""
    assert len(messages({f"zz{index}": 1 for index in range(50)})) == MAX_FIELD_ERRORS == 20


def test_bounds_are_found_inside_optional_types_and_outside() -> None:
    """`Annotated[int, ...] | None` and `int` with Field bounds read the same."""

    class Model(BaseModel):
        inner: Annotated[int, Field(ge=1, le=3)] | None = None
        outer: int = Field(default=1, gt=0, lt=4)
        open_end: int = Field(default=1, le=3)

    try:
        Model.model_validate({"inner": 9, "outer": 4, "open_end": 4})
    except ValidationError as error:
        found = [{**item, "loc": ("body", *item["loc"])} for item in error.errors()]
    assert [item.message for item in field_errors(found, Model)] == [
        "inner must be between 1 and 3, got 9",
        "outer must be between 0 (not included) and 4 (not included), got 4",
        "open_end must be at most 3, got 4",
    ]


def test_long_values_are_named_by_their_size() -> None:
    """A message never repeats a whole prompt."""
    assert shown("x" * 61) == "61 characters"
    assert shown("ü" * 60) == '"' + "ü" * 58 + "…"
    assert shown({"a": 1}) == "an object"
    assert shown(b"x") == "plain bytes"
