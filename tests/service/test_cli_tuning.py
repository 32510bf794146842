"""`coloq tune` and `coloq policies` against a served app of fakes."""

import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from agent.config import LanguageSettings, TenantSettings
from service import cli_tuning
from service.cli_tuning import policies_app, tune_app
from service.config import NodeConfig
from service.http import client
from service.http.app import create_app
from service.http.fake_tuning import EPOCH, step_report
from service.http.fakes import FakeAuthenticator, FakeMetrics, FakeNode, served
from tests.service.gate_reports import gate_report
from trainer.records import Evaluation, PolicyRecord, RunRequest, RunState

REPORTS = [step_report(1, reward=0.25, loss=0.5), step_report(2, reward=0.75, loss=float("nan"))]


@pytest.fixture
def node() -> FakeNode:
    node = FakeNode()
    node.tuning.reports = REPORTS
    return node


@pytest.fixture
def app(node: FakeNode) -> FastAPI:
    acme = TenantSettings(id="acme", languages={"de": LanguageSettings()})
    return create_app(node, FakeAuthenticator({"tenant-key": acme}), NodeConfig(), FakeMetrics())


@pytest.fixture
def url(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The served node, with its address and admin key in the environment."""
    monkeypatch.setattr(cli_tuning, "POLL_S", 0.01)
    monkeypatch.setenv("COLOQ_ADMIN_KEY", "admin-key")
    with capture_logs(), served(app) as url:  # the node logs in this process, where stdout is the command's
        monkeypatch.setenv("COLOQ_URL", url)
        yield url


def tune(*arguments: str) -> Result:
    return CliRunner().invoke(tune_app, arguments)


def policies(*arguments: str) -> Result:
    return CliRunner().invoke(policies_app, arguments)


def test_start_sends_what_was_chosen_and_follows_the_run(url: str, node: FakeNode) -> None:
    """The id and the outcome are on stdout; reward, loss and version of every step are on stderr."""
    result = tune(
        "start",
        *("--language", "de", "--language", "en", "--steps", "2", "--group-size", "4", "--learning-rate", "0.001"),
        *("--publish-every", "1", "--no-gate", "--seed", "7", "--prompts-per-step", "2", "--max-tokens", "32"),
    )
    assert result.exit_code == 0, result.output
    assert node.tuning.runs["run_1"].request == RunRequest(("de", "en"), 2, 4, 2, 32, 0.001, 1, False, 7)
    assert result.stdout == "run_1\nrun_1 succeeded after 2 of 2 steps; published policy 2\n"
    assert "step    1  reward 0.2500  loss 0.5000  version 1  32 replies" in result.stderr
    assert "step    2  reward 0.7500  loss n/a  version 2  32 replies" in result.stderr


def test_start_without_watching_prints_the_id_and_leaves(url: str, node: FakeNode) -> None:
    """For scripts: nothing but the id."""
    result = tune("start", "--no-watch")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "run_1\n", "")
    assert node.tuning.runs["run_1"].steps == ()
    assert node.tuning.runs["run_1"].request.gate is None


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.REJECTED])
def test_a_run_that_ends_badly_exits_1_with_its_reason(url: str, node: FakeNode, state: RunState) -> None:
    """A script sees the failure, a person the reason."""
    node.tuning.ends, node.tuning.reason = state, "de is worse by 0.2"
    result = tune("start")
    assert result.exit_code == 1
    assert f"run_1 {state.value} after 2 of 2 steps; de is worse by 0.2" in result.stdout


def test_a_problem_is_told_on_stderr(url: str) -> None:
    """The detail, the status and the request id; stdout stays empty."""
    tune("start", "--no-watch")
    result = tune("start", "--no-watch")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: one tuning run at a time, and run_1 is running [409 conflict, req_")


def test_a_bad_value_is_told_before_anything_is_sent(url: str, node: FakeNode) -> None:
    """The API's own rule, in the API's own words."""
    result = tune("start", "--group-size", "1")
    assert (result.exit_code, result.stderr) == (1, "error: group_size must be between 2 and 256, got 1\n")
    assert node.tuning.runs == {}


def test_status_shows_all_runs_or_one(url: str) -> None:
    """A table of runs without a name, the steps of a run with one."""
    tune("start")
    listed = tune("status")
    assert "run_1" in listed.stdout
    assert "succeeded" in listed.stdout
    assert "2/2" in listed.stdout
    shown = tune("status", "run_1")
    assert shown.stdout.splitlines() == [
        "run_1 succeeded after 2 of 2 steps; published policy 2",
        "step    1  reward 0.2500  loss 0.5000  version 1  32 replies",
        "step    2  reward 0.7500  loss n/a  version 2  32 replies",
    ]


def test_a_run_s_id_is_whole_in_a_narrow_terminal(url: str, node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other commands take it; a long reason gives way."""
    monkeypatch.setenv("COLUMNS", "60")
    tune("start")
    long = replace(node.tuning.runs["run_1"], id="run_0123456789ab", reason="nothing to learn from in 5 prompts " * 3)
    node.tuning.runs = {long.id: long}
    assert "run_0123456789ab" in tune("status").stdout


def test_stop_says_where_the_run_stood(url: str) -> None:
    """The run had made no step when it was stopped."""
    tune("start", "--no-watch", "--steps", "2")
    result = tune("stop", "run_1")
    assert (result.exit_code, result.stdout) == (0, "run_1 is stopped after 0 of 2 steps\n")
    # Watching a run that has ended tells its outcome.
    assert tune("watch", "run_1").stdout == "run_1 stopped after 0 of 2 steps; stopped by an operator\n"


def test_an_unknown_run_exits_1_also_when_its_name_is_a_path(url: str) -> None:
    """A name is one segment of the path, whatever it holds."""
    for command in ("status", "watch", "stop"):
        result = tune(command, "run_9")
        assert result.exit_code == 1
        assert "there is no tuning run run_9 [404 not_found, req_" in result.stderr
    assert tune("status", "../policies").exit_code == 1


def test_ctrl_c_leaves_the_run_alone(url: str, node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 130, and how to stop the run that goes on."""
    node.tuning.reports = ()

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("service.cli_tuning.time.sleep", interrupt)
    result = tune("start", "--steps", "2")
    assert result.exit_code == 130
    assert "run_1 goes on; `coloq tune stop run_1` stops it" in result.stderr
    assert not node.tuning.runs["run_1"].state.final


def test_a_policy_is_shown_with_what_the_gate_found(url: str, node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict in words, then every language and metric; a run's status shows the same."""
    monkeypatch.setenv("COLUMNS", "140")
    evaluation = Evaluation(2, 0, 0.75, 0.5, {}, {}, {}, gate_report(("de", "reward", 0.25)))
    node.policies.records[2] = PolicyRecord(2, "adapter", 0, "run_1", EPOCH, None, None, evaluation)
    said = [
        "gate undetermined: 16 held-out prompts, exam 0123456789ab",
        "undetermined in fr: no held-out prompt, at least 8 are needed",
        "rise of the reward in de shown: +0.250, at least +0.125",
        "moved in de: 0.062 nats per token over 40 tokens",
        "a note",
    ]
    shown = policies("show", "2").stdout.splitlines()
    assert shown[:7] == [
        "policy 2, adapter, of run_1, published 2026-01-01 00:00:00",
        "held-out reward 0.5000 -> 0.7500, beside policy 0",
        *said,
    ]
    assert shown[8].split() == "de reward 0.500 0.750 +0.250 +0.125 to +0.375 0.05 16 passed".split()
    tune("start")
    node.tuning.runs["run_1"] = replace(node.tuning.runs["run_1"], evaluation=evaluation)
    assert set(said) <= set(tune("status", "run_1").stdout.splitlines())
    assert policies("show", "0").stdout.splitlines()[-1] == "no held-out comparison was made of it"
    assert "no published policy 9" in policies("show", "9").stderr


def test_policies_are_listed_and_activated(url: str, node: FakeNode) -> None:
    """The active one is marked; activation goes forward and back."""
    node.policies.records[2] = PolicyRecord(2, "adapter", 0, "run_1", EPOCH, None, None, None)
    assert policies("activate", "2").stdout == "policy 2 is active\n"
    rows = [line.split() for line in policies("list").stdout.splitlines()[1:]]
    assert rows == [
        ["active", "2", "adapter", "0", "run_1", "2026-01-01", "00:00:00", "-"],
        ["0", "base", "-", "-", "2026-01-01", "00:00:00", "-"],
    ]
    assert policies("activate", "0").exit_code == 0
    assert node.policies.active_version == 0
    assert policies("activate", "9").exit_code == 1


def test_the_admin_key_must_be_in_the_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one nothing is sent; with a tenant's the node says which key it takes."""
    monkeypatch.setenv("COLOQ_ADMIN_KEY", "tenant-key")
    assert "/admin routes take the node's admin key" in tune("status").stderr
    monkeypatch.delenv("COLOQ_ADMIN_KEY")
    result = tune("status")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: COLOQ_ADMIN_KEY must hold the node's admin key, got nothing")


@pytest.mark.parametrize("key", ["clq_admin_ä", "clq_admin_x\nclq_admin_y", "clq admin"])
def test_a_variable_that_holds_no_key_is_told_without_it(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """No header can carry it. What it holds may be half a secret, so it is not repeated."""
    monkeypatch.setenv("COLOQ_ADMIN_KEY", key)
    result = tune("status", "--url", "http://127.0.0.1:1")
    assert (result.exit_code, result.stderr) == (
        1,
        "error: COLOQ_ADMIN_KEY must hold the node's admin key alone, got other characters than a key has\n",
    )


def test_a_node_that_does_not_answer_is_an_error_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that was just free refuses the connection, and the reason is told: it might be a certificate's."""
    monkeypatch.setenv("COLOQ_ADMIN_KEY", "admin-key")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    result = tune("status", "--url", f"http://127.0.0.1:{port}")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: no node answers at http://127.0.0.1:{port} (")
    assert "refused" in result.stderr


@pytest.mark.parametrize("url", ["nonsense", "", "http://127.0.0.1:port"])
def test_a_url_that_is_none_is_told_as_one(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """The option is named, and no node is missed."""
    monkeypatch.setenv("COLOQ_ADMIN_KEY", "admin-key")
    result = tune("status", "--url", url)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: --url must be a URL such as http://127.0.0.1:8080, got {url!r}")


def test_a_node_that_takes_too_long_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It took the request, and may carry it out yet."""
    monkeypatch.setenv("COLOQ_ADMIN_KEY", "admin-key")
    monkeypatch.setattr(client, "TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        result = policies("activate", "1", "--url", f"http://127.0.0.1:{listener.getsockname()[1]}")
    assert result.exit_code == 1
    assert "did not answer within 0 s; it may still do what it was asked" in result.stderr


def test_an_interrupted_run_is_resumed(url: str, node: FakeNode) -> None:
    """Who follows it is told how; resumed, it says where it goes on from, and ends as any other."""
    node.tuning.ends, node.tuning.reason = RunState.INTERRUPTED, "the node stopped during the run"
    result = tune("start")
    assert result.exit_code == 1
    assert "`coloq tune resume run_1` goes on with it" in result.stderr
    node.tuning.ends, node.tuning.reason = RunState.SUCCEEDED, None
    node.tuning.runs["run_1"] = replace(node.tuning.runs["run_1"], steps=tuple(REPORTS[:1]))
    assert tune("resume", "run_1").stdout == (
        "run_1 goes on after 1 of 2 steps\nrun_1 succeeded after 2 of 2 steps; published policy 2\n"
    )
    assert node.tuning.runs["run_1"].resumed_after == (1,)


def test_a_run_that_is_not_interrupted_is_not_resumed(url: str) -> None:
    """The node's own words, and exit code 1."""
    tune("start", "--no-watch")
    result = tune("resume", "run_1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "only an interrupted run can be resumed, and run_1 is running [409 conflict, req_" in result.stderr


def test_a_run_s_report_goes_where_it_is_wanted(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page and charts beside the caller or in a named folder; JSON on stdout, alone when nothing else is asked for."""
    monkeypatch.chdir(tmp_path)
    tune("start")
    assert "report: run_1-report/report.html" in tune("report", "run_1").stderr
    assert (tmp_path / "run_1-report" / "reward.png").exists()
    assert tune("report", "run_1", "--out", "here").exit_code == 0
    assert (tmp_path / "here" / "report.html").exists()
    dumped = tune("report", "run_1", "--json")
    assert json.loads(dumped.stdout)["series"]["reward_mean"] == [[1, 0.25], [2, 0.75]]
    assert dumped.stderr == ""


def test_a_report_that_cannot_be_written_is_told(url: str, tmp_path: Path) -> None:
    """The path and why, for a folder whose place a file has."""
    (tmp_path / "taken").write_text("")
    tune("start")
    result = tune("report", "run_1", "--out", str(tmp_path / "taken"))
    assert (result.exit_code, result.stderr) == (1, f"error: {tmp_path / 'taken'}: cannot be written: File exists\n")


def test_an_unknown_run_or_one_without_steps_has_no_report(url: str, node: FakeNode) -> None:
    """Exit code 1 and the reason; no files."""
    assert "there is no tuning run run_9 [404 not_found, req_" in tune("report", "run_9").stderr
    node.tuning.reports = ()
    tune("start", "--no-watch")
    result = tune("report", "run_1")
    assert (result.exit_code, result.stderr) == (
        1,
        "error: run_1 has taken no step that could be reported on; it is running\n",
    )
