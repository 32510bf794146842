"""`coloq rewards train`, `cancel`, `list`, `show` and `activate` against a served app of fakes."""

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from agent.errors import TooFewPairs
from service import cli_reward_models
from service.cli_rewards import rewards_app
from service.config import NodeConfig
from service.http.app import create_app
from service.http.fakes import FakeAuthenticator, FakeMetrics, FakeNode, served
from service.reward_models.fakes import shelved
from service.reward_models.records import TrainingState
from service.reward_models.shelf import LanguageModels
from service.reward_models.trainings import TrainingRequest


@pytest.fixture
def node() -> FakeNode:
    node = FakeNode()
    node.reward_models.models["de"] = LanguageModels("de", 1, (shelved(2, num_right=5, num_wrong=5), shelved(1)))
    node.reward_models.reason = "it ranks 9 held-out prompts better"
    return node


@pytest.fixture(autouse=True)
def url(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The served node, with its address and admin key in the environment."""
    monkeypatch.setattr(cli_reward_models, "POLL_S", 0.01)
    monkeypatch.setenv("COLOQ_ADMIN_KEY", "admin-key")
    monkeypatch.setenv("COLUMNS", "120")
    app = create_app(node, FakeAuthenticator({}), NodeConfig(), FakeMetrics())
    with capture_logs(), served(app) as url:  # the node logs in this process, where stdout is the command's
        monkeypatch.setenv("COLOQ_URL", url)
        yield url


def rewards(*arguments: str) -> Result:
    return CliRunner().invoke(rewards_app, arguments)


def test_train_sends_what_was_chosen_and_follows(node: FakeNode) -> None:
    """The id and the outcome are on stdout, progress on stderr."""
    result = rewards("train", "--language", "de", "--epochs", "3", "--learning-rate", "0.001", "--rank", "8")
    assert result.exit_code == 0, result.output
    assert node.reward_models.requests == [TrainingRequest(3, 0.001, 8, 0)]
    assert result.stdout == "training_1\nreward model 3 of de accepted: it ranks 9 held-out prompts better\n"
    assert "2/2" in result.stderr


def test_train_without_watching_prints_the_id_alone(node: FakeNode) -> None:
    """For scripts; the training goes on and can be cancelled."""
    assert rewards("train", "--language", "de", "--no-watch").stdout == "training_1\n"
    assert not node.reward_models.started["training_1"].state.final
    assert rewards("cancel", "training_1").stdout == "training_1 is cancelled\n"


@pytest.mark.parametrize("state", [TrainingState.REJECTED, TrainingState.FAILED, TrainingState.INTERRUPTED])
def test_what_was_not_accepted_exits_1(node: FakeNode, state: TrainingState) -> None:
    """With the reason."""
    node.reward_models.ends, node.reward_models.reason = state, "p = 1"
    result = rewards("train", "--language", "de")
    assert result.exit_code == 1
    assert f"reward model 3 of de {state.value}: p = 1" in result.stdout


def test_refusals_are_told_on_stderr(node: FakeNode) -> None:
    """The node's counts, and a setting that is out of bounds; stdout stays empty."""
    node.reward_models.error = TooFewPairs("a reward model for de needs at least 100 training pairs, got 3")
    result = rewards("train", "--language", "de")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "needs at least 100 training pairs, got 3" in result.stderr
    result = rewards("train", "--language", "de", "--rank", "0")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "rank must be between 1 and 256, got 0" in result.stderr


def test_list_shows_versions_and_trainings() -> None:
    """A row for each version, one for a language without any, and the trainings below."""
    rewards("train", "--language", "de", "--no-watch")
    rows = [line.split() for line in rewards("list").stdout.splitlines()]
    assert rows[1][:6] == ["de", "2", "rejected", "0.500", "100", "10"]
    assert rows[2][:6] == ["de", "1", "active", "0.900", "100", "10"]
    assert rows[3][:5] == ["en", "-", "no", "reward", "model"]
    assert rows[5] == ["training_1", "de", "running", "3", "0/?"]


def test_show_has_the_report_of_the_active_version() -> None:
    """Accuracy with its interval, calibration, each source; another version when it is named."""
    shown = rewards("show", "--language", "de").stdout
    assert "reward model 1 of de, active, on tiny" in shown
    assert "0.900 [0.596, 0.982]" in shown
    assert "accuracy on edit" in shown
    assert "trained on 100 pairs (edit 100); held out 10 pairs (edit 10); 0 too long" in shown
    assert "reward model 2 of de, rejected" in rewards("show", "--language", "de", "2").stdout
    missing = rewards("show", "--language", "de", "3")
    assert missing.exit_code == 1
    assert "there is no reward model 3 of de" in missing.stderr


def test_activate_rolls_back(node: FakeNode) -> None:
    """To a version, or to none."""
    assert rewards("activate", "--language", "de", "0").stdout == "no reward model of de is active\n"
    assert rewards("activate", "--language", "de", "1").stdout == "reward model 1 of de is active\n"
    assert node.reward_models.models["de"].active == 1
