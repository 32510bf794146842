"""JMESPath expressions that cannot fill the memory.

An expression is written by one tenant and evaluated in the process of all. Most of JMESPath gives back less than it is
given. What can give back more is limited, so that a result stays within a few hundred times the payload: selecting the
same part many times (`[@, @] | [@, @]`), writing JSON into JSON (`to_string`, which doubles each backslash), and `join`
with a separator from the payload (length times length).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.parser import ParsedResult

MAX_CHARS = 300
MAX_MULTI_SELECTS = 2
MAX_SELECTED = 12
"""Parts that all multi-selects of an expression name together."""
MAX_TO_STRING = 3

Node = Mapping[str, Any]


def compiled(expression: object) -> ParsedResult:
    """The expression, checked.

    Raises:
        ValueError: it is none, or it could grow too much; the message is the rule and what came.
    """
    if not isinstance(expression, str) or not 1 <= len(expression) <= MAX_CHARS:
        raise ValueError(f"must have a JMESPath expression of 1 to {MAX_CHARS} characters in `from`")
    try:
        parsed = jmespath.compile(expression)
    except (JMESPathError, RecursionError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ValueError(f"must be a JMESPath expression: {reason}") from error
    _require_bounded(list(_nodes(parsed.parsed)))
    return parsed


def _require_bounded(nodes: list[Node]) -> None:
    selects = [node for node in nodes if node["type"] in ("multi_select_list", "multi_select_dict")]
    if len(selects) > MAX_MULTI_SELECTS:
        raise ValueError(
            f"must have at most {MAX_MULTI_SELECTS} multi-selects ([a, b] or {{x: a}}), got {len(selects)}"
        )
    if (num_selected := sum(len(node["children"]) for node in selects)) > MAX_SELECTED:
        raise ValueError(f"must select at most {MAX_SELECTED} parts ([a, b] or {{x: a}}), got {num_selected}")
    if (num_to_string := sum(_calls(node, "to_string") for node in nodes)) > MAX_TO_STRING:
        raise ValueError(f"must call to_string at most {MAX_TO_STRING} times, got {num_to_string}")
    for node in nodes:
        if _calls(node, "join") and node["children"] and node["children"][0]["type"] != "literal":
            raise ValueError("must join with a literal separator, such as join(', ', tags)")


def _calls(node: Node, function: str) -> bool:
    return (node["type"], node.get("value")) == ("function_expression", function)


def _nodes(node: Node) -> Iterator[Node]:
    """The nodes of a parsed expression."""
    yield node
    for child in node.get("children", ()):
        if isinstance(child, Mapping):
            yield from _nodes(child)
