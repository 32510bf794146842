"""What measurements compute from what they saw: token rates, order of versions, metrics; prompts, configuration."""

import json
import shutil
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console
from typer.testing import CliRunner

from agent.errors import InvalidInput
from service.bench.control import PaceOrder, TrainedStep
from service.bench.coserve_rows import AloneRow, Trained, coserve_row, tokens_within
from service.bench.failure import BenchFailed
from service.bench.load import Exchange, LoadResult, Target
from service.bench.node import NodeSettings
from service.bench.prompt import calibrate
from service.bench.report import Report, written
from service.bench.scraper import Metric, metrics_of
from service.bench.steps import Gaps, StepFigures, step_figures
from service.bench.swap import num_backwards
from service.cli import app
from service.config_file import parse
from service.serve import listening
from tests.service.bench.fake_server import FakeServer
from trainer.step_trace import StepTrace, TracedMicrobatch, TracedStep


def step(began_s: float, ended_s: float) -> TrainedStep:
    return TrainedStep(began_s=began_s, ended_s=ended_s, num_tokens=100, step_s=1.0, loss=0.0, grad_norm=1.0)


def reply(sent_s: float, latency_s: float, version: int) -> Exchange:
    return Exchange(sent_s, sent_s, latency_s, status=200, policy_version=version)


def test_a_step_across_the_windows_border_counts_by_its_share() -> None:
    """Of steps 0-2, 2-4 and 4-6 s the window 1-5 s holds a half, all, and a half: 200 tokens."""
    assert tokens_within([step(0, 2), step(2, 4), step(4, 6)], 1.0, 5.0) == 200
    assert tokens_within([step(0, 1)], 2.0, 3.0) == 0


def load(began_s: float, latencies_s: list[float]) -> LoadResult:
    """A window of ten seconds."""
    rows = [Exchange(began_s, began_s, latency_s, status=200) for latency_s in latencies_s]
    return LoadResult(began_s, 10.0, rows, len(rows), 0)


def test_rounds_are_compared_with_the_loads_on_both_sides() -> None:
    """A host that slows down: 1, 2 and 4 s without training, 1.5 and 6 s with it. By hand: 1.5 over 1.5 and 6 over 3 in
    the rounds, 3.75 over 2 all together; 100 tokens of each window's ten seconds, of 20 tokens/s alone."""
    offs = [load(0, [1.0]), load(20, [2.0]), load(40, [4.0])]
    trace = StepTrace([], [])
    metrics = ({"coloq_slo_step_slowdown": Metric(1.2, 1.1)}, {"coloq_slo_step_slowdown": Metric(1.5, 1.3)})
    ons = [
        Trained(load(10, [1.5]), [step(12, 14)], metrics[0], trace),
        Trained(load(30, [6.0]), [step(25, 35), step(38, 39)], metrics[1], trace),
    ]
    row = coserve_row(60.0, None, offs, ons, AloneRow(20.0, 1, 1.0), max_tokens=8)
    assert row.rounds == [1.0, 2.0]
    latency, drift = row.p50["latency"], row.drift_p99
    assert latency is not None
    assert drift is not None
    assert (latency.value, drift.value) == (3.75 / 2, 4.0)
    assert (row.train_tokens_per_s, row.train_share, row.num_steps) == (12.5, 0.625, 3)
    assert row.metrics["coloq_slo_step_slowdown"] == Metric(1.35, 1.3)
    assert row.step_slowdown == 1.3


def test_steps_are_told_apart_by_what_ran_beside_them() -> None:
    """Gaps of 10, 20, 30, 40 and 50 ms, then one without requests; a micro-batch from 15 to 45 ms lies beside the
    second and the third. The window leaves the first out."""
    begins = [0.0, 0.01, 0.03, 0.06, 0.1, 0.15, 0.5]
    steps = [TracedStep(began, 1, 5 * (place in (2, 3)), place not in (0, 6)) for place, began in enumerate(begins)]
    figures = step_figures(StepTrace(steps, [TracedMicrobatch(0.015, 0.045, 32, 0.09)]), 0.005, 9.005)
    kinds = (figures.decoding.calm, figures.decoding.beside, figures.prompts.calm, figures.prompts.beside)
    assert [kind and (kind.count, round(kind.p50, 6)) for kind in kinds] == [(1, 50), (1, 20), (1, 40), (1, 30)]
    longest = [(round(gap_ms), beside) for gap_ms, beside in figures.longest]
    assert longest == [(50, False), (40, False), (30, True), (20, True)]
    assert figures.learner_cpu_share == pytest.approx(0.01)


def test_no_steps_have_no_figures() -> None:
    """A window without traffic is no error."""
    figures = step_figures(StepTrace([], []), 0.0, 1.0)
    assert figures == StepFigures(Gaps(None, None), Gaps(None, None), [], 0.0)


def test_a_version_goes_backwards_only_behind_an_answer() -> None:
    """The second request was sent before version 2 had answered anyone, so 1 is right; the fourth comes after it."""
    in_order = [reply(0.0, 1.0, 2), reply(0.5, 1.0, 1), reply(1.1, 0.1, 2)]
    assert num_backwards(in_order) == 0
    assert num_backwards([*in_order, reply(1.2, 0.1, 1)]) == 1


def test_metrics_of_training_are_read_by_name_and_label() -> None:
    """Others are left out."""
    text = (
        "# TYPE coloq_controller_duty gauge\ncoloq_controller_duty 0.5\n"
        '# TYPE coloq_slo_p99_seconds gauge\ncoloq_slo_p99_seconds{quantity="ttft"} 0.02\n'
        "# TYPE coloq_engine_ready gauge\ncoloq_engine_ready 1.0\n"
    )
    assert metrics_of(text) == {"coloq_controller_duty": 0.5, "coloq_slo_p99_seconds_ttft": 0.02}


def test_a_pace_is_sms_and_duty() -> None:
    """`64:0.8` is 64 multiprocessors for 80 % of the time."""
    assert PaceOrder.parse("64:0.8") == PaceOrder(num_sms=64, duty=0.8)
    assert str(PaceOrder.parse("64:0.8")) == "64:0.8"
    with pytest.raises(ValueError):
        PaceOrder.parse("64")


def test_the_nodes_configuration_holds_the_longest_prompt_and_the_overrides(tmp_path: Path) -> None:
    """128 + 32 + 128 + 64 tokens are 352, which 384 holds; numbers, truth values and words are taken as they are."""
    settings = NodeSettings(
        tmp_path, 128, 128, True, ("engine.kv_cache_gib=0.5", "engine.enforce_eager=true", "tuning.method=full")
    )
    config = parse(settings.text("sha256:" + "a" * 64))
    assert config.engine.max_model_len == 384
    assert (config.engine.kv_cache_gib, config.engine.enforce_eager, config.tuning.method) == (0.5, True, "full")
    assert config.agent.max_tokens == 128
    assert tomllib.loads(settings.text("sha256:" + "a" * 64))["tenants"][0]["id"] == "bench"
    with pytest.raises(InvalidInput, match=r"section\.key=VALUE"):
        NodeSettings(tmp_path, 1, 1, True, ("engine.model",)).text("sha256:" + "a" * 64)


async def test_prompts_are_filled_until_the_node_counts_enough() -> None:
    """A template of 20 tokens and 3 a word: 36 words make 128, and 34 to 38 lie within 5 %."""
    async with listening(FakeServer(delay_s=0.0, tokens_per_word=3)) as url:
        recipe = await calibrate(Target("content", url), 128, seed=0)
        assert 34 <= recipe.num_words <= 38
        with pytest.raises(BenchFailed, match="templates make 23"):
            await calibrate(Target("content", url), 10, seed=0)


def test_a_report_is_written_also_when_a_measurement_fails(tmp_path: Path) -> None:
    """Rows so far, the command, versions and the failure are in the file."""
    report = Report("serve", tmp_path / "out", Console(quiet=True), {"rate": 1}, command="coloq bench serve")

    def measure() -> None:
        with written(report):
            report.add("loads", {"load": "1 req/s"})
            report.chart("latency", Figure())
            raise BenchFailed("the node ended")

    with pytest.raises(BenchFailed):
        measure()
    content = json.loads(report.path.read_text())
    assert content["loads"] == [{"load": "1 req/s"}]
    assert content["failure"] == "BenchFailed: the node ended"
    assert content["command"] == "coloq bench serve"
    assert content["machine"]["versions"]["torch"]
    assert datetime.fromisoformat(content["began_at"]).tzinfo == UTC
    assert (tmp_path / "out" / "serve-latency.png").read_bytes().startswith(b"\x89PNG")


def test_what_was_measured_is_on_the_disk_before_the_end(tmp_path: Path) -> None:
    """A process that is killed leaves every row so far; the failure says that there was more to come."""
    report = Report("coserve", tmp_path / "out", Console(quiet=True), {})
    for rate in (1, 2):
        report.add("rates", {"rate": rate})
        content = json.loads(report.path.read_text())
        assert (content["rates"][-1], content["failure"]) == ({"rate": rate}, "not finished")
    report.write()
    assert json.loads(report.path.read_text())["failure"] is None
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["coserve.json"]


def test_a_folder_that_was_removed_meanwhile_is_made_again(tmp_path: Path) -> None:
    """Rows from before are kept: they are in memory."""
    report = Report("coserve", tmp_path / "out", Console(quiet=True), {})
    with written(report):
        report.add("rates", {"rate": 1})
        shutil.rmtree(tmp_path / "out")
        report.chart("ratios", Figure())
        shutil.rmtree(tmp_path / "out")
    assert json.loads(report.path.read_text())["rates"] == [{"rate": 1}]


def test_rows_are_of_whatever_a_measurement_has(tmp_path: Path) -> None:
    """Pydantic models, numpy's numbers and paths, also inside of a row; what nothing is known of becomes text."""
    report = Report("learn", tmp_path, Console(quiet=True), {"pace": PaceOrder(num_sms=64, duty=0.5)})
    report.add("rates", PaceOrder(num_sms=64, duty=0.5))
    report.add("rates", {"pace": PaceOrder(num_sms=8, duty=1.0), "p99": np.float32(0.5), "count": np.int64(3)})
    report.add("rates", {"log": tmp_path, 7: Console})
    report.write()
    content = json.loads(report.path.read_text())
    assert content["configuration"] == {"pace": {"num_sms": 64, "duty": 0.5}}
    assert content["rates"] == [
        {"num_sms": 64, "duty": 0.5},
        {"pace": {"num_sms": 8, "duty": 1.0}, "p99": 0.5, "count": 3},
        {"log": str(tmp_path), "7": str(Console)},
    ]


@pytest.mark.parametrize("command", ["serve", "coserve", "swap"])
def test_every_bench_has_help(command: str) -> None:
    """`--help` tells what is measured and how."""
    result = CliRunner().invoke(app, ["bench", command, "--help"])
    assert result.exit_code == 0
    assert "--quick" in result.output


def test_a_rate_must_be_a_positive_number() -> None:
    """The option and the rule are named."""
    result = CliRunner().invoke(app, ["bench", "serve", "--rates", "fast"])
    assert result.exit_code == 1
    assert "--rates: must be positive numbers" in result.output
