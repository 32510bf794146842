"""What a brief of each kind needs."""

import pytest

from agent.brief import Brief, Kind
from agent.errors import InvalidBrief


@pytest.mark.parametrize(
    ("kind", "fields", "field", "message"),
    [
        (
            Kind.TRANSLATE,
            {"instructions": "x"},
            "text",
            "kind 'translate' needs the text to translate, got an empty text",
        ),
        (Kind.REWRITE, {"text": " "}, "text", "kind 'rewrite' needs the text to rewrite, got an empty text"),
        (
            Kind.CORRECT,
            {"text": "x", "schema": "{}"},
            "schema",
            "kind 'correct' has a form of its own and takes no schema",
        ),
        (
            Kind.SUGGEST,
            {"text": "x", "schema": "{}"},
            "schema",
            "kind 'suggest' has a form of its own and takes no schema",
        ),
    ],
)
def test_a_kinds_own_rules(kind: Kind, fields: dict[str, str], field: str, message: str) -> None:
    """The field that breaks the rule is named, with the rule."""
    with pytest.raises(InvalidBrief) as caught:
        Brief("acme", kind, "de", **fields)  # type: ignore[arg-type]
    assert (caught.value.field, caught.value.message) == (field, message)
