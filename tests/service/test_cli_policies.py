"""`coloq policies`: canary, promote, rollback and pin against a served app of fakes."""

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from agent.config import LanguageSettings, TenantSettings
from service.cli_policies import policies_app
from service.config import NodeConfig
from service.http.app import create_app
from service.http.fake_tuning import EPOCH
from service.http.fakes import FakeAuthenticator, FakeMetrics, FakeNode, registry_of, served
from trainer.records import PolicyRecord

ACME = TenantSettings(id="acme", languages={"de": LanguageSettings()})


@pytest.fixture
def node() -> FakeNode:
    made = FakeNode(tenancy=registry_of([ACME]))
    records = {version: PolicyRecord(version, "adapter", 0, "run_1", EPOCH, None, None, None) for version in (1, 2)}
    made.policies.records.update(records)
    return made


@pytest.fixture
def url(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    app = create_app(node, FakeAuthenticator({"tenant-key": ACME}), NodeConfig(), FakeMetrics())
    monkeypatch.setenv("COLOQ_ADMIN_KEY", "admin-key")
    with capture_logs(), served(app) as address:
        monkeypatch.setenv("COLOQ_URL", address)
        yield address


def policies(*arguments: str) -> Result:
    return CliRunner().invoke(policies_app, arguments)


def test_a_canary_from_the_command_line(url: str) -> None:
    """Started, shown, stopped; what it says is what the node says."""
    assert policies("canary", "status").stdout == "no canary is running\n"
    started = policies("canary", "2", "--share", "0.25", "--language", "de")
    assert started.stdout == "canary of policy 2 beside policy 0, 25% of the end users, in de\n"
    shown = policies("canary", "status").stdout
    assert "not shown yet: no reply of the candidate yet" in shown
    stopped = "canary of policy 2 beside policy 0: stopped; stopped by an operator\n"
    assert policies("canary", "stop").stdout == stopped
    assert f"ended: {stopped}" in policies("canary", "status").stdout


def test_promoted_and_rolled_back(url: str, node: FakeNode) -> None:
    """For everybody, and for one tenant."""
    assert policies("promote", "2").stdout == "policy 2 answers everybody\n"
    assert policies("rollback", "2").stdout == "policy 0 answers everybody\n"
    assert policies("promote", "1", "--tenant", "acme").stdout == "policy 1 answers acme\n"
    assert node.tenant_policies.versions == {"acme": 1}
    assert policies("rollback", "1", "--tenant", "acme").stdout == "policy 0 answers acme\n"


def test_pinned_and_let_go(url: str, node: FakeNode) -> None:
    """A tenant, or one of its languages."""
    assert policies("pin", "2", "--tenant", "acme").stdout == "acme stays with policy 2\n"
    pinned = policies("pin", "1", "--tenant", "acme", "--language", "de")
    assert pinned.stdout == "acme in de stays with policy 1\n"
    settings = node.tenancy.get("acme").settings
    assert (settings.policy, settings.languages["de"].policy) == (2, 1)
    assert policies("unpin", "2", "--tenant", "acme").exit_code == 0
    assert node.tenancy.get("acme").settings.policy is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("canary", "soon"), "canary must be followed by a version, status or stop, got soon"),
        (("canary", "2", "--share", "0.9"), "share must be between 0 (not included) and 0.5, got 0.9"),
        (("canary", "7"), "there is no policy 7"),
        (("pin", "1", "--tenant", "a" * 64), "tenant must have at most 63 characters, got 64 characters"),
        (("promote", "1", "--tenant", ""), 'tenant must have at least 1 character, got ""'),
        (("rollback", "2"), "policy 2 is not active, policy 0 is"),
    ],
)
def test_what_cannot_be_ends_with_1_and_the_reason(url: str, arguments: tuple[str, ...], told: str) -> None:
    """On stderr."""
    result = policies(*arguments)
    assert result.exit_code == 1
    assert told in result.stderr
