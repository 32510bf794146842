"""Placeholders in instructions."""

import pytest

from agent.errors import InvalidBrief
from agent.variables import fill_in


def test_every_placeholder_is_replaced_wherever_it_stands() -> None:
    """Spaces inside the braces do not matter, and one variable may be used twice."""
    text = "Greet {{name}} from {{ city }}. Bye, {{name}}!"
    assert fill_in(text, {"name": "Ada", "city": "Oslo"}) == "Greet Ada from Oslo. Bye, Ada!"


def test_values_are_not_looked_at_again() -> None:
    """A value that reads like a placeholder, or like a group of a regular expression, stays as it is."""
    assert fill_in("{{a}} {{b}}", {"a": "{{b}}", "b": r"\1"}) == r"{{b}} \1"


def test_braces_around_anything_but_a_name_stay() -> None:
    """What no variable can be called is no placeholder."""
    assert fill_in("{{7*7}} {a} {{}} {{x}}", {"x": "1"}) == "{{7*7}} {a} {{}} 1"


@pytest.mark.parametrize(
    ("text", "variables", "message"),
    [
        ("Hi {{nmae}}", {"nmae_": "x"}, "must give every {{name}} of instructions, got none for nmae"),
        ("Hi {{b}} {{a}}", {}, "must give every {{name}} of instructions, got none for a, b"),
        ("Hi", {"name": "x"}, "must be used in instructions as {{name}}, got name unused"),
    ],
)
def test_a_typing_error_is_told(text: str, variables: dict[str, str], message: str) -> None:
    """A placeholder without a variable and a variable without a placeholder are both refused by name."""
    with pytest.raises(InvalidBrief) as caught:
        fill_in(text, variables)
    assert (caught.value.field, caught.value.message) == ("variables", message)
