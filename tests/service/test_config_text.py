"""The reference table and the starter file: every key, always in step with the tree."""

import re
from pathlib import Path

import pytest

from service.config import NodeConfig
from service.config_file import parse
from service.config_text import reference, starter
from service.config_tree import Key, keys

HASH = "sha256:" + "a" * 64


@pytest.mark.parametrize("key", list(keys()), ids=lambda key: key.path)
def test_every_key_is_documented(key: Key) -> None:
    """Each key has a sentence that says what it is."""
    assert key.description.endswith((".", ")"))
    assert len(key.description) > 4


def test_keys_reach_into_every_section() -> None:
    """The list of keys has those of nested sections, of each tenant and of each of its languages."""
    paths = {key.path for key in keys()}
    assert {
        "data_dir",
        "tuning.adapter.rank",
        "tenants[].id",
        "tenants[].languages.<language>.address",
    } <= paths
    assert "tuning" not in paths


def test_reference_shows_type_default_and_meaning() -> None:
    """A row of the table has the key's path, type with bounds, default and meaning."""
    rows = reference().splitlines()
    assert "| `server.port` | integer >= 0, <= 65535 | `8080` | Port to listen on; 0 picks a free one. |" in rows
    assert any(row.startswith("| `store.url` | text | unset |") for row in rows)
    assert any(row.startswith("| `tenants[].id` | text | required |") for row in rows)
    assert len(rows) == 2 + len(list(keys()))
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 5 for row in rows)


def test_readme_has_the_reference() -> None:
    """The README's configuration table is the output of `coloq config reference`."""
    readme = Path(__file__).parents[2] / "README.md"
    assert reference() in readme.read_text(encoding="utf-8")


def test_starter_file_is_the_defaults_with_one_tenant() -> None:
    """What `coloq init` writes loads, has the tenant, and changes no default."""
    config = parse(starter("acme", ["pl", "de"], HASH))
    assert [(tenant.id, tenant.key_hashes, list(tenant.languages)) for tenant in config.tenants] == [
        ("acme", (HASH,), ["pl", "de"])
    ]
    assert config.model_copy(update={"tenants": ()}) == NodeConfig()


def test_starter_file_stays_valid_when_its_comments_are_taken_away() -> None:
    """Uncommenting the keys that have defaults gives a valid file that says the same."""
    text = starter("acme", ["pl"], HASH)
    uncommented = re.sub(r"^# ([a-z_]+ = (?!\().*)$", r"\1", text, flags=re.MULTILINE)
    assert "\nport = 8080\n" in uncommented
    assert parse(uncommented).model_copy(update={"tenants": ()}) == NodeConfig()
