"""The configuration's keys, read from the pydantic tree: where each one is, its type, default and meaning.

A field is documented once, by the string under it; the reference table, the starter file and the hints of error
messages all come from here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from agent.config import LanguageSettings
from service.config import NodeConfig


@dataclass(frozen=True, slots=True)
class Key:
    """One key that a file may set."""

    path: str
    """Dotted; `tenants[]` stands for each tenant, `<language>` and `<name>` for a key that the file chooses."""
    type_name: str
    default: object
    """`REQUIRED` when a file must set it."""
    description: str


REQUIRED = object()
_CHOSEN: dict[type[BaseModel], str] = {LanguageSettings: ".<language>"}
"""What stands for the keys of a table of sections."""


def keys(model: type[BaseModel] = NodeConfig, prefix: str = "") -> Iterator[Key]:
    """Every key below ``model``, in the order of definition. Sections themselves are not keys."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        section, suffix = _section_of(field.annotation)
        if section is None or suffix:
            yield Key(path, type_name(field), _default(field), " ".join((field.description or "").split()))
        if section is not None:
            yield from keys(section, f"{path}{suffix}.")


def section_at(location: tuple[int | str, ...]) -> type[BaseModel]:
    """The section that an error's location lies in; the last item names the key itself."""
    section: type[BaseModel] = NodeConfig
    for item in location[:-1]:
        if isinstance(item, str) and item in section.model_fields:
            section = _section_of(section.model_fields[item].annotation)[0] or section
    return section


def type_name(field: FieldInfo) -> str:
    """A field's type for people, with its bounds: `integer >= 1`, `"auto" or "float32"`, `list of text`."""
    bounds = [f"{sign} {value}" for sign, value in _bounds(field.metadata)]
    return " ".join([_plain_name(field.annotation), ", ".join(bounds)]).strip()


def _default(field: FieldInfo) -> object:
    default = field.get_default(call_default_factory=True)
    return REQUIRED if default is PydanticUndefined else default


def _section_of(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    """The section behind a field's type, and what stands between the field and the section's keys."""
    if _is_section(annotation):
        return annotation, ""
    arguments = [argument for argument in get_args(annotation) if _is_section(argument)]
    if not arguments:
        return None, ""
    return arguments[0], _CHOSEN.get(arguments[0], ".<name>") if get_origin(annotation) is dict else "[]"


def _is_section(annotation: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _bounds(metadata: list[Any]) -> Iterator[tuple[str, object]]:
    for item in metadata:
        for attribute, sign in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<")):
            if (value := getattr(item, attribute, None)) is not None:
                yield sign, value


_NAMES = {int: "integer", float: "number", bool: "true or false", str: "text"}


def _plain_name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds = ", ".join(f"{sign} {value}" for sign, value in _field_bounds(arguments[1:]))
        return f"{_plain_name(arguments[0])} {bounds}".strip()
    if origin is Literal:
        return " or ".join(f'"{choice}"' if isinstance(choice, str) else str(choice) for choice in arguments)
    if origin in (Union, UnionType):
        return " or ".join(_plain_name(argument) for argument in arguments if argument is not NoneType)
    if origin is tuple:
        return "tables" if _is_section(arguments[0]) else f"list of {_plain_name(arguments[0])}"
    if origin is dict:
        return "tables" if _is_section(arguments[1]) else f"table of {_plain_name(arguments[1])}"
    return _NAMES.get(annotation, "path" if annotation.__name__ == "Path" else annotation.__name__)


def _field_bounds(metadata: tuple[Any, ...]) -> Iterator[tuple[str, object]]:
    for item in metadata:
        if isinstance(item, FieldInfo):
            yield from _bounds(item.metadata)
