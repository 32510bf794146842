"""Placeholders in a caller's instructions: ``{{name}}`` is replaced by the variable of that name, once.

Values are never looked at again, so a value that holds a placeholder stays as it is. Knows no templates of ours.
"""

import re
from collections.abc import Mapping

from agent.errors import InvalidBrief

NAME = r"[A-Za-z_][A-Za-z0-9_]{0,63}"
"""What a variable may be called."""

_PLACEHOLDER = re.compile(rf"\{{\{{\s*({NAME})\s*\}}\}}")


def fill_in(text: str, variables: Mapping[str, str]) -> str:
    """``text`` with every placeholder replaced. Braces around anything but a name are left alone.

    Raises:
        InvalidBrief: a placeholder has no variable, or a variable no placeholder: either is a typing error.
    """
    used = set(_PLACEHOLDER.findall(text))
    missing = sorted(used - variables.keys())
    unused = sorted(variables.keys() - used)
    if missing:
        raise InvalidBrief("variables", f"must give every {{{{name}}}} of instructions, got none for {_names(missing)}")
    if unused:
        raise InvalidBrief("variables", f"must be used in instructions as {{{{name}}}}, got {_names(unused)} unused")
    return _PLACEHOLDER.sub(lambda match: variables[match[1]], text)


def _names(names: list[str]) -> str:
    return ", ".join(names[:10])
