"""Logs and metrics."""

import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import pytest
import structlog

from agent.completion import GenerationTiming
from agent.episode import Reply
from agent.verdict import LanguageVerdict, Verdict
from service.controller import Decision, Direction, Move
from service.slo import Quantity, Reading, Standing
from service.telemetry import Metrics, configure_logging, settle_loggers
from tests.service.gate_reports import gate_report
from trainer.pace import Pace
from trainer.records import Evaluation, StepReport


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Logging is the process's own; what a test changes is put back."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    names = ("uvicorn.access", "uvicorn.error", "httpx", "httpcore", "asyncio", "vllm")
    levels = {name: logging.getLogger(name).level for name in names}
    vllm = logging.getLogger("vllm")
    vllm_handlers, vllm_propagates = list(vllm.handlers), vllm.propagate
    yield
    vllm.handlers[:], vllm.propagate = vllm_handlers, vllm_propagates
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, quiet in levels.items():
        logging.getLogger(name).setLevel(quiet)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_json_logs_have_bound_values_and_take_in_the_standard_library(capsys: pytest.CaptureFixture[str]) -> None:
    """Our events and a library's records are one JSON object a line, with what the context has bound."""
    configure_logging("info", "json")
    with structlog.contextvars.bound_contextvars(request_id="r-1", tenant="acme", policy_version=7):
        structlog.get_logger("ours").info("policy_published", stall_ms=3.1)
        logging.getLogger("theirs").warning("disk %s", "full")
    ours, theirs = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    bound = {"request_id": "r-1", "tenant": "acme", "policy_version": 7}
    assert ours.pop("timestamp").endswith("Z")
    assert ours == bound | {"event": "policy_published", "stall_ms": 3.1, "level": "info", "logger": "ours"}
    assert theirs.pop("timestamp").endswith("Z")
    assert theirs == bound | {"event": "disk full", "level": "warning", "logger": "theirs"}


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_stack_shows_no_value(capsys: pytest.CaptureFixture[str], log_format: Literal["json", "console"]) -> None:
    """Ours and a library's: where it happened and why, but none of the variables there, which hold briefs and keys."""

    def train_on(brief: str) -> None:
        claims = {"prompt": brief}
        raise RuntimeError(f"{len(claims)} claim")

    configure_logging("info", log_format)
    for emit in (structlog.get_logger("ours").exception, logging.getLogger("asyncio").exception):
        try:
            train_on("a brief " + "that nobody may read")
        except RuntimeError:
            emit("tuning_run_crashed")
        shown = capsys.readouterr().err
        assert "train_on" in shown
        assert "1 claim" in shown
        assert "a brief that nobody may read" not in shown


def test_level_holds_back_what_is_below_it(capsys: pytest.CaptureFixture[str]) -> None:
    """At level `warning` neither our info events nor a library's are written."""
    configure_logging("warning", "console")
    structlog.get_logger("ours").info("quiet")
    logging.getLogger("theirs").info("quiet")
    structlog.get_logger("ours").warning("loud", n=1)
    written = capsys.readouterr().err
    assert "quiet" not in written
    assert "loud" in written
    assert "n=1" in written


@pytest.mark.parametrize(("level", "shown"), [("info", False), ("debug", True)])
def test_engine_and_server_talk_about_themselves_at_debug_only(
    level: Literal["info", "debug"], shown: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """vLLM's warnings at import and uvicorn's life-cycle lines are noise to an operator; vLLM's errors are not. What an
    earlier set-up had quieted is heard again."""
    configure_logging("info", "console")
    configure_logging(level, "console")
    logging.getLogger("vllm.triton_utils.importing").warning("no CPU backend")
    logging.getLogger("uvicorn.error").info("Started server process")
    logging.getLogger("vllm.engine").error("broken")
    written = capsys.readouterr().err
    assert ("no CPU backend" in written, "Started server process" in written) == (shown, shown)
    assert "broken" in written


def test_vllms_own_handler_gives_way_to_the_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    """Imported after the set-up, vLLM writes to stdout in its own form; once settled, its errors are the node's."""
    configure_logging("info", "json")
    vllm = logging.getLogger("vllm")
    vllm.addHandler(logging.StreamHandler(sys.stdout))
    vllm.propagate = False
    settle_loggers()
    logging.getLogger("vllm.engine").error("broken")
    written = capsys.readouterr()
    assert written.out == ""
    assert json.loads(written.err)["event"] == "broken"


def test_second_set_up_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    """Setting logging up again changes the format and doubles no line."""
    configure_logging("info", "console")
    configure_logging("info", "json")
    structlog.get_logger("ours").info("once")
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["once"]


def lines(metrics: Metrics) -> list[str]:
    return metrics.render().splitlines()


def test_reply_is_counted_by_tenant_and_language() -> None:
    """A reply adds its tokens, its verdict and its duration in seconds: 250 ms is 0.25."""
    verdict = LanguageVerdict("pl", Verdict.FAILED, 0.5, ())
    reply = Reply("r-1", "tekst", "pl", verdict, 3, "stop", prompt_tokens=11, completion_tokens=7, duration_ms=250.0)
    metrics = Metrics()
    metrics.observe_reply("acme", reply)
    metrics.observe_reply("acme", reply)
    assert {
        'coloq_replies_total{finish_reason="stop",language="pl",tenant="acme"} 2.0',
        'coloq_tokens_total{language="pl",part="prompt",tenant="acme"} 22.0',
        'coloq_tokens_total{language="pl",part="completion",tenant="acme"} 14.0',
        'coloq_language_verdicts_total{language="pl",tenant="acme",verdict="failed"} 2.0',
        'coloq_reply_duration_seconds_sum{language="pl"} 0.5',
    } <= set(lines(metrics))


def test_request_is_counted_by_route_and_status() -> None:
    """Requests are counted by method, route template and status, their latency by method and route."""
    metrics = Metrics()
    metrics.observe_request(method="POST", route="/v1/content", status=200, duration_s=0.3)
    assert 'coloq_http_requests_total{method="POST",route="/v1/content",status="200"} 1.0' in lines(metrics)
    buckets = [line for line in lines(metrics) if line.startswith("coloq_http_request_duration_seconds_bucket")]
    assert 'coloq_http_request_duration_seconds_bucket{le="0.25",method="POST",route="/v1/content"} 0.0' in buckets
    assert 'coloq_http_request_duration_seconds_bucket{le="0.5",method="POST",route="/v1/content"} 1.0' in buckets


def test_step_shows_its_last_values_and_adds_up_what_was_dropped() -> None:
    """Gauges show the last step; counters add up over steps."""
    report = StepReport(
        step=1,
        version=1,
        num_sequences=8,
        num_tokens=100,
        reward_mean=0.25,
        reward_std=0.1,
        reward_by_language={"pl": 0.5},
        parts={},
        dropped={"stale": 2},
        loss=-0.125,
        grad_norm=2.0,
        clip_fraction=0.5,
        effective_sample_size=0.75,
        mismatch_mean=0.01,
        rollout_s=1.0,
        score_s=0.1,
        train_s=2.0,
        install_s=0.05,
        passed_over={"duplicate": 3},
        num_logged_groups=1,
        num_sampled_groups=4,
        staleness_mean=0.5,
        staleness_max=2,
        mismatch_max=0.75,
        entropy=1.5,
        behaviour_kl=0.0625,
    )
    metrics = Metrics()
    metrics.tuning.observe_step(report)
    metrics.tuning.observe_step(report)
    assert {
        "coloq_tuning_steps_total 2.0",
        "coloq_tuning_tokens_total 200.0",
        'coloq_tuning_dropped_total{reason="stale"} 4.0',
        'coloq_tuning_passed_over_total{reason="duplicate"} 6.0',
        'coloq_tuning_groups_total{source="logged"} 2.0',
        'coloq_tuning_groups_total{source="sampled"} 8.0',
        'coloq_tuning_staleness{statistic="mean"} 0.5',
        'coloq_tuning_staleness{statistic="max"} 2.0',
        "coloq_tuning_reward_mean 0.25",
        'coloq_tuning_language_reward_mean{language="pl"} 0.5',
        "coloq_tuning_loss -0.125",
        "coloq_tuning_grad_norm 2.0",
        "coloq_tuning_effective_sample_size 0.75",
        "coloq_tuning_clip_fraction 0.5",
        "coloq_tuning_mismatch_max_nats 0.75",
        "coloq_tuning_entropy_nats 1.5",
        "coloq_tuning_behaviour_kl_nats 0.0625",
        "coloq_tuning_base_kl_nats NaN",
        'coloq_tuning_phase_duration_seconds_sum{phase="train"} 4.0',
    } <= set(lines(metrics))


def test_a_decision_of_the_gate_is_counted_with_its_differences() -> None:
    """Counted by verdict; differences are the last decision's alone. Without a report there is nothing to show."""
    metrics = Metrics()
    old = Evaluation(2, 0, 0.5, 0.5, {}, {}, {})
    metrics.tuning.observe_evaluation(replace(old, report=gate_report(("pl", "reward", -0.25), ("de", "reward", 0.5))))
    metrics.tuning.observe_evaluation(replace(old, report=gate_report(("de", "fidelity", 0.125))))
    metrics.tuning.observe_evaluation(old)
    shown = [
        line for line in lines(metrics) if line.startswith(("coloq_gate_decisions_total", "coloq_gate_difference"))
    ]
    assert shown == [
        'coloq_gate_decisions_total{verdict="undetermined"} 2.0',
        'coloq_gate_difference{language="de",metric="fidelity"} 0.125',
    ]


def test_state_and_events_of_the_node() -> None:
    """Gauges follow the node's state; counters its events."""
    metrics = Metrics()
    metrics.set_active_policy(7)
    metrics.set_engine_ready(True)
    metrics.set_rollouts_in_flight(12)
    metrics.set_journal_episodes({("acme", "pl", "train"): 40})
    metrics.engine_restarted()
    metrics.journal_failed("acme")
    metrics.journal_corrupt()
    metrics.publication_ended("published")
    metrics.tuning.run_ended("succeeded")
    metrics.content_failed("acme", TimeoutError())
    assert {
        "coloq_policy_active_version 7.0",
        "coloq_engine_ready 1.0",
        "coloq_rollouts_in_flight 12.0",
        'coloq_journal_episodes{language="pl",split="train",tenant="acme"} 40.0',
        "coloq_engine_restarts_total 1.0",
        'coloq_journal_failures_total{tenant="acme"} 1.0',
        "coloq_journal_corrupt_total 1.0",
        'coloq_publications_total{outcome="published"} 1.0',
        'coloq_tuning_runs_total{state="succeeded"} 1.0',
        'coloq_content_failures_total{error="TimeoutError",tenant="acme"} 1.0',
    } <= set(lines(metrics))


def test_live_requests_tokens_are_counted_finely() -> None:
    """Milliseconds apart; a single token has no time between tokens and is not counted as one of zero."""
    metrics = Metrics()
    metrics.observe_generation(GenerationTiming(first_token_s=0.0345, inter_token_s=0.0065))
    metrics.observe_generation(GenerationTiming(first_token_s=0.0345, inter_token_s=None))
    assert {
        'coloq_live_first_token_seconds_bucket{le="0.03"} 0.0',
        'coloq_live_first_token_seconds_bucket{le="0.04"} 2.0',
        'coloq_live_inter_token_seconds_bucket{le="0.006"} 0.0',
        'coloq_live_inter_token_seconds_bucket{le="0.007"} 1.0',
        'coloq_live_inter_token_seconds_bucket{le="10.0"} 1.0',
        "coloq_live_inter_token_seconds_count 1.0",
    } <= set(lines(metrics))


def test_a_decision_shows_what_was_read_and_only_that() -> None:
    """A reading that is gone by the next decision is not shown any more: an old value would look like a new one."""
    reading = Reading(Quantity.INTER_TOKEN, 0.0075, 0.008, 0.0066, Standing.WITHIN)
    decision = Decision(
        pace=Pace(80, 1.0),
        rollout_limit=12,
        evict=False,
        scoring=True,
        level=5,
        top_level=6,
        readings=(reading,),
        violations=(Quantity.TTFT,),
        slowdown=1.02,
        moves=(Move(Direction.UP, "head-room"),),
    )
    metrics = Metrics()
    metrics.observe_decision(decision)
    assert {
        "coloq_controller_level 5.0",
        "coloq_controller_top_level 6.0",
        "coloq_controller_num_sms 80.0",
        "coloq_controller_duty 1.0",
        "coloq_controller_rollout_limit 12.0",
        'coloq_controller_decisions_total{direction="up"} 1.0',
        'coloq_slo_p99_seconds{quantity="inter_token"} 0.0075',
        'coloq_slo_bound_seconds{quantity="inter_token"} 0.008',
        'coloq_slo_baseline_seconds{quantity="inter_token"} 0.0066',
        'coloq_slo_violations_total{quantity="ttft"} 1.0',
    } <= set(lines(metrics))
    metrics.set_step_slowdown(decision.slowdown)
    assert "coloq_slo_step_slowdown 1.02" in lines(metrics)
    metrics.set_step_slowdown(None)
    assert "coloq_slo_step_slowdown NaN" in lines(metrics)
    metrics.observe_decision(replace(decision, readings=(), moves=(), violations=()))
    assert not any(line.startswith(("coloq_slo_p99", "coloq_slo_bound", "coloq_slo_base")) for line in lines(metrics))


def test_every_metric_is_ours_and_described() -> None:
    """Names begin with `coloq_` (the process's own with `process_`), and each has a sentence."""
    helps = [line.split(" ", 3)[2:] for line in lines(Metrics()) if line.startswith("# HELP")]
    assert len(helps) > 20
    for name, sentence in helps:
        assert name.startswith(("coloq_", "process_"))
        assert sentence.endswith(".")


def test_two_nodes_in_one_process_count_apart() -> None:
    """Each node has its own registry."""
    one, other = Metrics(), Metrics()
    one.engine_restarted()
    assert "coloq_engine_restarts_total 1.0" in lines(one)
    assert "coloq_engine_restarts_total 0.0" in lines(other)


def test_reward_models_are_shown_by_language() -> None:
    """Version and accuracy of what judges, 0 and no number where nothing does; trainings by outcome."""
    metrics = Metrics()
    metrics.set_reward_model("de", 2, 0.875)
    metrics.set_reward_model("pl", None, None)
    metrics.reward_training_ended("rejected")
    text = metrics.render()
    assert 'coloq_reward_model_version{language="de"} 2.0' in text
    assert 'coloq_reward_model_accuracy{language="de"} 0.875' in text
    assert 'coloq_reward_model_version{language="pl"} 0.0' in text
    assert 'coloq_reward_model_accuracy{language="pl"} NaN' in text
    assert 'coloq_reward_trainings_total{outcome="rejected"} 1.0' in text
