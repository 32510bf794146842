"""The configuration as text: the effective tree with secrets masked, the reference table, a starter file."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.config import TenantSettings
from service.config import NodeConfig
from service.config_tree import REQUIRED, Key, keys
from service.secrets import ADMIN_KEY_HASH, STORE_PASSWORD, Secrets

_SHOWN_HASH_CHARS = len("sha256:") + 8


def effective(config: NodeConfig) -> dict[str, Any]:
    """The whole tree, defaults included, as plain values; key hashes are cut short."""
    tree = config.model_dump(mode="json")
    for tenant in tree["tenants"]:
        tenant["key_hashes"] = [f"{key_hash[:_SHOWN_HASH_CHARS]}..." for key_hash in tenant["key_hashes"]]
    return tree


def effective_toml(config: NodeConfig, secrets: Secrets) -> str:
    """The effective tree as TOML, headed by which secrets the environment sets (never what they are)."""
    set_by_environment = {STORE_PASSWORD: secrets.store_password, ADMIN_KEY_HASH: secrets.admin_key_hash}
    heading = [f"# {name}: {'unset' if value is None else 'set'}" for name, value in set_by_environment.items()]
    return "\n".join([*heading, *_tables(effective(config), ())]) + "\n"


def tenants_toml(tenants: Sequence[TenantSettings]) -> str:
    """Tenants as `[[tenants]]` tables of a configuration file, without keys."""
    tables = [tenant.model_dump(mode="json", exclude={"key_hashes"}) for tenant in tenants]
    return "\n".join(_tables({"tenants": tables}, ())).lstrip("\n") + "\n"


def reference() -> str:
    """A Markdown table of every key: type, default and meaning."""
    rows = [
        f"| `{key.path}` | {_cell(key.type_name)} | {_default_cell(key)} | {_cell(key.description)} |" for key in keys()
    ]
    return "\n".join(["| key | type | default | meaning |", "| --- | --- | --- | --- |", *rows]) + "\n"


def starter(tenant: str, languages: Sequence[str], key_hash: str) -> str:
    """A first configuration file: one tenant set, every other key as a comment with its default and meaning."""
    lines = ["# Configuration of a Coloq node. A key behind # has the value shown unless you set it.", ""]
    section = ""
    for key in keys():
        if key.path.startswith("tenants") or "<" in key.path:  # tables of the file's own choosing have no defaults
            continue
        parent, _, name = key.path.rpartition(".")
        if parent != section:
            section = parent
            lines += ["", f"[{section}]"]
        lines += [f"# {key.description}", f"# {name} = {_example(key)}"]
    return "\n".join([*lines, *_starter_tenant(tenant, languages, key_hash)]) + "\n"


def _starter_tenant(tenant: str, languages: Sequence[str], key_hash: str) -> Iterator[str]:
    yield from ("", "[[tenants]]", f"id = {_word(tenant)}")
    yield "# `coloq key new` makes another key and prints its hash for this list."
    yield f"key_hashes = [{_word(key_hash)}]"
    for language in languages:
        yield from ("", f"[tenants.languages.{_key(language)}]")
        yield '# address = "formal"'
        yield '# brand_terms = ["Your Brand"]'


def _example(key: Key) -> str:
    return f"({key.type_name}; unset)" if key.default is None else _word(key.default)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _default_cell(key: Key) -> str:
    if key.default is REQUIRED:
        return "required"
    return "unset" if key.default is None else f"`{_word(key.default)}`"


def _tables(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """Lines of a TOML table: its own values first, then the tables below it, then arrays of tables."""
    inner = {name: value for name, value in table.items() if isinstance(value, dict)}
    arrays = {name: value for name, value in table.items() if _is_table_array(value)}
    for name, value in table.items():
        if name not in inner and name not in arrays:
            yield f"# {name} is unset" if value is None else f"{_key(name)} = {_word(value)}"
    for name, value in inner.items():
        yield from ("", f"[{'.'.join(map(_key, (*path, name)))}]", *_tables(value, (*path, name)))
    for name, items in arrays.items():
        for item in items:
            yield from ("", f"[[{'.'.join(map(_key, (*path, name)))}]]", *_tables(item, (*path, name)))


def _is_table_array(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else _word(name)


def _word(value: object) -> str:
    """A value in TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(str(name))} = {_word(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_word, value)) + "]"
    if isinstance(value, str | Path):
        # JSON's escapes are a subset of TOML's, except that TOML has no surrogate pairs; DEL must be escaped.
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    raise TypeError(f"no TOML for {type(value).__name__}")
