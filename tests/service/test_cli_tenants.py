"""`coloq tenant` and `coloq key` against a served app of fakes."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from agent.config import LanguageSettings, TenantSettings
from service.cli import app
from service.config import NodeConfig
from service.config_file import parse
from service.http.app import create_app
from service.http.fake_tuning import EPOCH
from service.http.fakes import FakeMetrics, FakeNode, served
from service.http.keys import NodeKeys
from service.secrets import AdminKey, hash_key
from service.tenancy.fakes import MemoryTenantStore
from service.tenancy.registry import TenantRegistry
from service.tenancy.rules import TenantRules
from service.tenants import Tenants, seeded

ACME = TenantSettings(id="acme", key_hashes=(hash_key("k1"),), languages={"de": LanguageSettings(address="formal")})


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A served node whose keys are the registry's."""
    records = [seeded(ACME, EPOCH)]
    tenants = Tenants(records)
    rules = TenantRules(labels={"de", "en"}, parts={"fidelity"})
    node = FakeNode(tenancy=TenantRegistry(MemoryTenantStore(records), tenants, rules))
    web = create_app(node, NodeKeys(tenants, AdminKey(hash_key("admin-key"))), NodeConfig(), FakeMetrics())
    monkeypatch.setenv("COLOQ_ADMIN_KEY", "admin-key")
    with capture_logs(), served(web) as url:
        monkeypatch.setenv("COLOQ_URL", url)
        yield url


def coloq(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def status(url: str, key: str) -> int:
    return httpx.get(f"{url}/v1/me", headers={"Authorization": f"Bearer {key}"}).status_code


def test_tenants_are_exported_changed_and_applied(url: str, tmp_path: Path) -> None:
    """What export prints is a valid configuration; applied after a change it is in force; a new one is added."""
    exported = coloq("tenant", "export").stdout
    assert [tenant.id for tenant in parse(exported).tenants] == ["acme"]
    file = tmp_path / "tenants.toml"
    file.write_text(
        exported.replace("weight = 1.0", "weight = 2.0") + '\n[[tenants]]\nid = "zeta"\n[tenants.languages.en]\n'
    )
    assert coloq("tenant", "apply", str(file)).stdout == "tenant acme replaced\ntenant zeta added\n"
    assert "weight = 2.0" in coloq("tenant", "export", "acme").stdout
    rows = [line.split() for line in coloq("tenant", "list").stdout.splitlines()[1:]]
    assert rows == [["acme", "de", "1", "0", "0", "admin"], ["zeta", "en", "0", "0", "0", "admin"]]
    assert coloq("tenant", "delete", "zeta").stdout == "tenant zeta deleted\n"
    acts = [line.split()[2] for line in coloq("tenant", "audit").stdout.splitlines()]
    assert acts == ["delete_tenant", "create_tenant", "replace_tenant"]


def test_a_file_that_breaks_a_rule_is_told_by_its_field(url: str, tmp_path: Path) -> None:
    """The node's own words; a file without tenants is told before anything is sent."""
    file = tmp_path / "tenants.toml"
    file.write_text('[[tenants]]\nid = "acme"\n[tenants.languages.xx]\n')
    result = coloq("tenant", "apply", str(file))
    assert result.exit_code == 1
    assert "languages.xx must be a language that the detector knows" in result.stderr
    file.write_text("")
    assert "must have `[[tenants]]` tables, got none" in coloq("tenant", "apply", str(file)).stderr


def test_a_date_where_a_text_belongs_is_told_by_its_field(url: str, tmp_path: Path) -> None:
    """TOML has dates, JSON has not; the node refuses it like any other value of a wrong kind."""
    file = tmp_path / "tenants.toml"
    file.write_text('[[tenants]]\nid = "zeta"\nweight = 2026-01-01\n[tenants.languages.en]\n')
    result = coloq("tenant", "apply", str(file))
    assert result.exit_code == 1
    assert "weight must be a number" in result.stderr


def test_a_key_without_a_name_is_told_by_its_field(url: str) -> None:
    """In the words that the node has for it."""
    result = coloq("key", "create", "acme", "--name", "")
    assert (result.exit_code, result.stderr) == (1, 'error: name must have at least 1 character, got ""\n')


def test_a_key_is_made_rotated_and_revoked(url: str) -> None:
    """The key alone is on stdout, and it opens; its successor does too, and a revoked one no longer."""
    made = coloq("key", "create", "acme", "--name", "Make", "--scope", "read", "--days", "30")
    first = made.stdout.strip()
    assert status(url, first) == 200
    key_id = made.stderr.split(",")[0]
    rotated = coloq("key", "rotate", "acme", key_id, "--overlap-hours", "0")
    second = rotated.stdout.strip()
    assert (status(url, first), status(url, second)) == (401, 200)
    second_id = rotated.stderr.split(",")[0]
    assert coloq("key", "revoke", "acme", second_id).stdout == f"{second_id} is revoked\n"
    assert status(url, second) == 401
    listed = coloq("key", "list", "acme").stdout
    assert key_id in listed
    assert "revoked" in listed
    assert first not in listed


def test_a_key_that_is_not_there_is_told(url: str) -> None:
    """Exit status 1 and the node's answer."""
    result = coloq("key", "revoke", "acme", "key_x")
    assert result.exit_code == 1
    assert "tenant acme has no key key_x [404 not_found" in result.stderr
