"""Templates that tenants write: what they may hold, and the flaw of one that holds more.

A sandbox keeps a template from Python's insides, not from asking for a billion characters. So a tenant's template may
print what the brief says, choose, and go through its examples, once each; it may not compute, call or define anything.
Whatever passes here renders for every brief.
"""

from collections.abc import Iterator

from jinja2 import Environment, StrictUndefined, TemplateSyntaxError, nodes
from jinja2.defaults import DEFAULT_NAMESPACE
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

VARIABLES = frozenset(
    """
    language instructions text tone audience keywords min_words max_words forbidden glossary source alternatives schema
    examples
    """.split()
)
"""What a template may use."""

_MAX_VARIABLES = 40
"""Uses of variables in one template; a text may be 100,000 characters long."""
_TAKEN: tuple[type[nodes.Node], ...] = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Const, nodes.Name, nodes.Getattr),
    *(nodes.If, nodes.For, nodes.CondExpr, nodes.Not, nodes.And, nodes.Or, nodes.Compare, nodes.Operand, nodes.Filter),
)
_FILTERS = frozenset(("upper", "lower", "title", "capitalize", "trim"))
_COMPARISONS = frozenset(("eq", "ne"))
_EXAMPLE_PARTS = frozenset(("given", "wanted"))
_LOOP_PARTS = frozenset(("first", "last", "index"))


def template_environment() -> Environment:
    """The sandbox that templates are parsed and rendered in, the product's and the tenants'."""
    return ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )


def template_flaw(template: str) -> str | None:
    """The rule that a tenant's template breaks, with what came; None for a good one."""
    try:
        tree = template_environment().parse(template)
    except TemplateSyntaxError as error:
        return f"must be a template, got line {error.lineno}: {error.message}"
    # Jinja's own globals do not count as undeclared, so they are refused by name.
    used = (
        find_undeclared_variables(tree) | {name.name for name in tree.find_all(nodes.Name)} & DEFAULT_NAMESPACE.keys()
    )
    if unknown := sorted(used - VARIABLES):
        return f"must use {', '.join(sorted(VARIABLES))} alone, got {', '.join(unknown)[:100]}"
    if (num_used := len(list(tree.find_all(nodes.Name)))) > _MAX_VARIABLES:
        return f"must use variables at most {_MAX_VARIABLES} times, got {num_used}"
    return next(_flaws(tree, loop_variable=None), None)


def _flaws(node: nodes.Node, loop_variable: str | None) -> Iterator[str]:
    """What a node and those below it must not be. ``loop_variable`` names the example that a loop is at."""
    if not isinstance(node, _TAKEN):
        yield f"must print, choose with 'if', and go through 'examples' with 'for', got {type(node).__name__.lower()}"
        return
    if isinstance(node, nodes.For):
        yield from _flaws_of_loop(node, loop_variable)
        loop_variable = getattr(node.target, "name", None)
    else:
        yield from _own_flaws(node, loop_variable)
    for child in node.iter_child_nodes():
        yield from _flaws(child, loop_variable)


def _flaws_of_loop(node: nodes.For, outer: str | None) -> Iterator[str]:
    is_plain = (
        isinstance(node.iter, nodes.Name) and node.iter.name == "examples" and isinstance(node.target, nodes.Name)
    )
    if not is_plain or node.recursive or node.test is not None or outer is not None:
        yield "must have loops that read 'for example in examples', none inside of another one"
    if isinstance(node.target, nodes.Name) and node.target.name in VARIABLES | {"loop"}:
        yield f"must give a loop's variable a name of its own, got {node.target.name}"


def _own_flaws(node: nodes.Node, loop_variable: str | None) -> Iterator[str]:
    if isinstance(node, nodes.Filter) and (node.name not in _FILTERS or node.args or node.kwargs):
        yield f"must filter by {', '.join(sorted(_FILTERS))}, without arguments, got {node.name}"
    if isinstance(node, nodes.Operand) and node.op not in _COMPARISONS:
        yield f"must compare with == and !=, got {node.op}"
    if isinstance(node, nodes.Getattr) and not _is_known_part(node, loop_variable):
        yield f"must take {', '.join(sorted(_EXAMPLE_PARTS))} of an example, got .{node.attr}"


def _is_known_part(node: nodes.Getattr, loop_variable: str | None) -> bool:
    if loop_variable is None or not isinstance(node.node, nodes.Name):
        return False
    known = {loop_variable: _EXAMPLE_PARTS, "loop": _LOOP_PARTS}.get(node.node.name, frozenset())
    return node.attr in known
