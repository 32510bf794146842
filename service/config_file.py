"""Loads the node's TOML file. Every rule that the file breaks is reported, all at once, each by its key's path.

    TOML ─► pydantic tree (types, bounds, unknown keys) ─► rules between sections ─► languages that the detector knows

The last step needs the detector's label set and is asked for separately (`check_languages`). Secrets are not in the
file: service.secrets reads them from the environment.
"""

import difflib
import re
import tomllib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from agent.config import TenantSettings
from agent.errors import InvalidConfig
from service.config import NodeConfig
from service.config_tree import keys, section_at
from service.language_rules import fallback_rules, language_rules
from service.reward_rules import reward_parts, reward_rules
from service.store_url import store_url_flaw

_LANGUAGE_CODE = re.compile(r"[a-z]{2,3}")


def load(path: Path) -> NodeConfig:
    """Read, validate and complete the configuration; ``data_dir`` comes back absolute, relative to the file's folder.

    Raises:
        InvalidConfig: the file cannot be read, is not TOML, or breaks rules; one line for each.
    """
    config = parse(_read(path), name=path.name)
    return config.model_copy(update={"data_dir": path.resolve().parent / config.data_dir})


def parse(text: str, *, name: str = "configuration") -> NodeConfig:
    """Validate a configuration's text.

    Raises:
        InvalidConfig: it is not TOML, or breaks rules; one line for each.
    """
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfig(name, f"is not valid TOML: {error}") from error
    try:
        config = NodeConfig.model_validate(tree)
    except ValidationError as error:
        _refuse(name, [_describe(details) for details in error.errors(include_url=False)])
        raise AssertionError("unreachable") from error
    _refuse(name, list(broken_rules(config)))
    return config


def check_languages(config: NodeConfig, labels: Collection[str]) -> None:
    """Refuse a tenant's language that the detector cannot tell: its language contract could never hold.

    Raises:
        InvalidConfig: one line for each such language.
    """
    problems = [
        problem
        for index, tenant in enumerate(config.tenants)
        for problem in unknown_languages(tenant, labels, f"tenants[{index}].")
    ]
    _refuse("configuration", problems)


def unknown_languages(tenant: TenantSettings, labels: Collection[str], prefix: str = "") -> Iterator[str]:
    """A message for each of a tenant's languages that the detector cannot tell; ``prefix`` comes before each path."""
    for code in tenant.languages:
        if code not in labels:
            yield (
                f"{prefix}languages.{code}: must be a language that the detector knows, got {code!r}"
                f"{_suggestion(code, labels)}"
            )


def broken_rules(config: NodeConfig) -> Iterator[str]:
    """Rules between keys that no single type can hold, one message for each that is broken."""
    yield from _engine_rules(config)
    yield from _store_rules(config)
    yield from _tenant_rules(config)
    if config.canary.on_publish and config.tuning.method == "full":
        yield 'canary.on_publish: must be false with tuning.method = "full" (one copy of the weights), got true'
    yield from _unknown_parts("rewards.weights", config.rewards.weights, reward_parts(config))
    yield from reward_rules(config)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # some editors begin a file with a byte order mark
    except FileNotFoundError as error:
        raise InvalidConfig(str(path), "no such file; `coloq init` writes one") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(str(path), f"cannot be read: {error}") from error


def _refuse(name: str, problems: list[str]) -> None:
    if not problems:
        return
    if len(problems) == 1:
        field, _, message = problems[0].partition(": ")
        raise InvalidConfig(field, message)
    raise InvalidConfig("", "\n".join([f"{name} breaks {len(problems)} rules:", *(f"  {line}" for line in problems)]))


def _engine_rules(config: NodeConfig) -> Iterator[str]:
    engine = config.engine
    reserve, slots = engine.live_reserve, engine.max_num_seqs
    if reserve >= slots:
        yield f"engine.live_reserve: must be below engine.max_num_seqs ({slots}), got {reserve}"
    for path, max_tokens in (("agent", config.agent.max_tokens), ("tuning", config.tuning.max_tokens)):
        if max_tokens >= engine.max_model_len:
            yield f"{path}.max_tokens: must be below engine.max_model_len ({engine.max_model_len}), got {max_tokens}"


def _store_rules(config: NodeConfig) -> Iterator[str]:
    if config.store.url is not None and (flaw := store_url_flaw(config.store.url)):
        yield f"store.url: {flaw}"


def _tenant_rules(config: NodeConfig) -> Iterator[str]:
    known = reward_parts(config)
    for tenant_id, times in Counter(tenant.id for tenant in config.tenants).items():
        if times > 1:
            yield f"tenants: ids must be unique, got {tenant_id!r} {times} times"
    for key_hash, times in Counter(item for tenant in config.tenants for item in tenant.key_hashes).items():
        if times > 1:
            yield f"tenants: a key_hash must stand once in the file, got {key_hash[:15]}... {times} times"
    for index, tenant in enumerate(config.tenants):
        yield from tenant_rules(tenant, known, f"tenants[{index}].")


def tenant_rules(tenant: TenantSettings, parts: Collection[str], prefix: str = "") -> Iterator[str]:
    """A message for each rule that one tenant's settings break; ``prefix`` comes before each path."""
    for code, settings in tenant.languages.items():
        path = f"{prefix}languages.{code}"
        if not _LANGUAGE_CODE.fullmatch(code):
            yield f"{path}: must be an ISO 639 code of two or three lower-case letters, got {code!r}"
        if (
            settings.min_words is not None
            and settings.max_words is not None
            and settings.min_words > settings.max_words
        ):
            yield f"{path}.min_words: must not exceed max_words ({settings.max_words}), got {settings.min_words}"
        yield from _unknown_parts(f"{path}.reward_weights", settings.reward_weights, parts)
        yield from language_rules(settings, path)
    yield from fallback_rules(tenant, prefix)


def _unknown_parts(path: str, weights: Mapping[str, float], known: Collection[str]) -> Iterator[str]:
    for part in weights:
        if part not in known:
            yield f"{path}.{part}: unknown reward part{_suggestion(part, known, prefix=f'{path}.')}"


def _describe(details: ErrorDetails) -> str:
    path = dotted(details["loc"])
    if details["type"] == "extra_forbidden":
        return f"{path}: unknown key{_nearest_key(details['loc'])}"
    rule = _RULES.get(details["type"])
    message = rule.format(**details.get("ctx", {})) if rule else _sentence(details["msg"])
    return f"{path}: {message}{_what_came(details)}"


def dotted(location: tuple[int | str, ...]) -> str:
    """A key's path as it is written in messages: ``tenants[0].languages.pl``."""
    path = ""
    for item in location:
        path += f"[{item}]" if isinstance(item, int) else f".{item}" if path else item
    return path


_RULES = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be above {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be below {lt}",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "must match {pattern}",
    "too_short": "must have at least {min_length} entry",
    "int_type": "must be an integer",
    "int_parsing": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "path_type": "must be a path",
    "tuple_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "missing": "must be set",
    "finite_number": "must be a finite number",
}
"""pydantic's error types in this product's words."""


def _sentence(message: str) -> str:
    return message[:1].lower() + message[1:]


def _what_came(details: ErrorDetails) -> str:
    if details["type"] == "missing":
        return ""
    if "key_hashes" in details["loc"]:
        # Somebody may have put the key itself there: it must not reach a terminal or a log.
        return ", got something else (`coloq key new` prints a key with its hash)"
    shown = _toml_word(details["input"])
    return f", got {shown if len(shown) <= 60 else shown[:57] + '...'}"


def _toml_word(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


def _nearest_key(location: tuple[int | str, ...]) -> str:
    name = str(location[-1])
    prefix = dotted(location[:-1])
    siblings = section_at(location).model_fields
    if near := difflib.get_close_matches(name, siblings, n=1):
        return f"; did you mean {prefix}.{near[0]}?" if prefix else f"; did you mean {near[0]}?"
    elsewhere = {key.path.rpartition(".")[2]: key.path for key in keys()}
    if near := difflib.get_close_matches(name, elsewhere, n=1, cutoff=0.8):
        return f"; did you mean {elsewhere[near[0]]}?"
    return f"; valid keys here: {', '.join(siblings)}"


def _suggestion(name: str, known: Collection[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {prefix}{near[0]}?" if near else ""
