"""Which JMESPath expressions a mapping may hold."""

import tracemalloc

import pytest
from pydantic import JsonValue

from service.webhooks.expression import compiled


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("a.b", "x"),
        ("a.list[0]", "p"),
        ("a.list[?@ != 'p']", ["q"]),
        ("join(', ', a.list)", "p, q"),
        ("join(': ', [a.b, a.list[1]])", "x: q"),
        ("a.missing || 'default'", "default"),
        ("to_string(a.n)", "7"),
        ("{x: a.b}.x", "x"),
        ("a.list | [0]", "p"),
    ],
)
def test_what_mappings_need_is_allowed(expression: str, expected: JsonValue) -> None:
    """Paths, filters, joins, defaults, a few selections."""
    assert compiled(expression).search({"a": {"b": "x", "n": 7, "list": ["p", "q"]}}) == expected


@pytest.mark.parametrize(
    ("expression", "rule"),
    [
        ("[@,@]|[@,@]|[@,@]", "at most 2 multi-selects"),
        ("{a: [@,@], b: [@]}", "at most 2 multi-selects"),
        ("[@,@,@,@,@,@,@]|[@,@,@,@,@,@]", "at most 12 parts"),
        ("to_string(to_array(to_string(to_array(to_string(to_array(to_string(@)))))))", "at most 3 times"),
        ("join(sep, list)", "a literal separator"),
        ("map(&join(@, @), list)", "a literal separator"),
        ("list[?join(sep, @) == 'a']", "a literal separator"),
        ("a[", "must be a JMESPath expression"),
        ("(" * 290, "must be a JMESPath expression"),
        ("", "1 to 300 characters"),
        ("a" * 301, "1 to 300 characters"),
        (7, "1 to 300 characters"),
    ],
)
def test_what_is_none_or_could_fill_the_memory_is_refused(expression: object, rule: str) -> None:
    """With the rule and what came."""
    with pytest.raises(ValueError, match=rule):
        compiled(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "to_string([@,@,@,@,@,@]) | to_string([@,@,@,@,@,@]) | to_string(@)",
        "join('" + "x" * 200 + "', @)",
        "to_string(to_array(to_string(to_array(to_string(@)))))",
    ],
)
def test_the_worst_that_is_allowed_stays_within_a_few_hundred_payloads(expression: str) -> None:
    """A payload of 10,000 texts of one backslash: 50 kB as JSON. 400 times that is 20 MB."""
    payload = ["\\"] * 10_000
    tracemalloc.start()
    compiled(expression).search(payload)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most_bytes < 20_000_000
