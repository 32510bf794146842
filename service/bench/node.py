"""The node that a bench measures: `coloq serve` or its hosted variant, with one tenant, configured by the bench."""

import json
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.errors import InvalidInput
from service.bench.client import LANGUAGE
from service.bench.control import CONTROL, HOSTED_PROGRAM
from service.bench.failure import BenchFailed
from service.config import NodeConfig
from service.config_file import parse
from service.demo.node_process import PROGRAM, running_node

TENANT = "bench"
LOG_NAME = "node.log"
_BLOCK_TOKENS = 64
_CPU_SEQS, _GPU_SEQS = 16, 256


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What a bench decides about its node."""

    model: Path
    prompt_tokens: int
    max_tokens: int
    on_cpu: bool
    overrides: tuple[str, ...] = ()
    """``section.key=VALUE``, the value as in TOML; a bare word is text."""
    languages: tuple[str, ...] = (LANGUAGE,)
    """What the tenant may ask for."""

    @property
    def config(self) -> NodeConfig:
        """The validated configuration, for what needs to know it outside the node. Raises InvalidInput."""
        return parse(self.text("sha256:" + "0" * 64))

    def text(self, key_hash: str) -> str:
        """The node's TOML for a tenant's key.

        Raises:
            InvalidInput: an override that is not ``section.key=VALUE``.
        """
        tree = self._tree()
        for override in self.overrides:
            _set(tree, override)
        tenant = f'\n[[tenants]]\nid = "{TENANT}"\nkey_hashes = ["{key_hash}"]\n'
        languages = "".join(f"[tenants.languages.{language}]\n" for language in self.languages)
        return "\n".join(["# Written by `coloq bench`.", *_lines(tree, ())]) + tenant + languages

    def _tree(self) -> dict[str, Any]:
        # Prompts are calibrated to within 5 % on the mean; single ones are longer.
        longest = self.prompt_tokens + self.prompt_tokens // 4 + self.max_tokens + _BLOCK_TOKENS
        return {
            "data_dir": "data",
            "server": {"port": 0},
            "engine": {
                "model": str(self.model),
                "max_model_len": -(-longest // _BLOCK_TOKENS) * _BLOCK_TOKENS,
                "max_num_seqs": _CPU_SEQS if self.on_cpu else _GPU_SEQS,
            },
            "agent": {"max_tokens": self.max_tokens, "temperature": 1.0, "hold_s": 300.0, "repair": "off"},
        }


@dataclass(frozen=True, slots=True)
class BenchNode:
    """A running node."""

    url: str
    tenant_key: str = field(repr=False)
    admin_key: str = field(repr=False)
    control_url: str | None
    """Of the hosted variant only."""


@contextmanager
def bench_node(
    folder: Path, settings: NodeSettings, *, hosted: bool, log_path: Path | None = None
) -> Iterator[BenchNode]:
    """Run a node for the length of the block. Enter it from the main thread.

    Args:
        folder: gets the configuration and the data; must exist.
        log_path: gets the node's log, which is in ``folder`` otherwise.
        hosted: with the control routes of service.bench.hosted.

    Raises:
        DemoFailed: the node ended before it was ready.
    """
    said: list[str] = []
    program = HOSTED_PROGRAM if hosted else PROGRAM
    with running_node(folder, log_path or folder / LOG_NAME, settings.text, said.append, program=program) as access:
        yield BenchNode(access.url, access.tenant_key, access.admin_key, _control_url(said) if hosted else None)


def _control_url(said: list[str]) -> str:
    for line in said:
        if line.startswith(CONTROL):
            return line.removeprefix(CONTROL)
    raise BenchFailed("the hosted node must say where its control routes are")


def _set(tree: dict[str, Any], override: str) -> None:
    path, equals, value = override.partition("=")
    *sections, key = path.strip().split(".")
    if not equals or not key:
        raise InvalidInput("set", f"must be section.key=VALUE, got {override}")
    for section in sections:
        tree = tree.setdefault(section, {})
    try:
        tree[key] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        tree[key] = value.strip()


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """A table's own values, then the tables below it. JSON writes the values that are used here as TOML does."""
    inner = {name: value for name, value in table.items() if isinstance(value, dict)}
    yield from (f"{name} = {json.dumps(value)}" for name, value in table.items() if name not in inner)
    for name, below in inner.items():
        yield from ("", f"[{'.'.join((*path, name))}]", *_lines(below, (*path, name)))
