"""The bench around the runs: budget, plan, node, curve, files, options."""

import json
from itertools import count
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from rewards.config import FAULT_WEIGHTS
from service.bench.learning.budget import Budget
from service.bench.learning.exam import Graded
from service.bench.learning.figures import Point
from service.bench.learning.results import TRL, LearnResults
from service.bench.learning.runs import RunRow, Variant, points_of
from service.bench.learning.settings import LearnOptions, Pace, node_settings, plan_of
from service.bench.report import Report
from service.cli import app
from service.http.tuning_schema import StepView


def options(out: Path = Path("bench"), **changes: object) -> LearnOptions:
    values: dict[str, object] = {
        "out": out,
        "model": Path("model"),
        "languages": ("de", "en"),
        "num_train": 16,
        "num_held_out": 8,
        "exam_replies": 2,
        "seeds": (0, 1),
        "num_steps": 10,
        "prompts_per_step": 2,
        "group_size": 4,
        "max_tokens": 16,
        "learning_rate": 1e-4,
        "rank": 8,
        "rate": 0.0,
        "fluency": True,
        "staleness": (0, 8),
        "corrections": ("none", "token_truncate"),
        "staleness_steps": 5,
        "against_trl": True,
        "trl_seeds": (0,),
        "trl_microbatch": 4,
        "vllm_memory": 0.1,
        "vllm_arguments": "{}",
        "prompt_seed": 0,
        "budget_s": None,
        "overrides": (),
    }
    return LearnOptions(**{**values, **changes})  # type: ignore[arg-type]  # one table of all options


def step(number: int, *, reward: float, num_groups: int) -> StepView:
    names = ("loss", "grad_norm", "clip_fraction", "effective_sample_size", "mismatch_mean", "reward_std")
    seconds = ("rollout_s", "score_s", "train_s", "install_s")
    return StepView.model_validate(
        {
            **dict.fromkeys(names, 0.5),
            **dict.fromkeys(seconds, 1.0),
            "step": number,
            "version": number,
            "num_sequences": 8,
            "num_tokens": 80,
            "reward_mean": reward,
            "reward_by_language": {"de": reward},
            "parts": {"fidelity": 1.0, "fluency": None},
            "dropped": {},
            "passed_over": {},
            "num_logged_groups": 0,
            "num_sampled_groups": num_groups,
            "staleness_mean": 0.0,
            "staleness_max": 0,
            "behaviour_kl": 0.25,
        }
    )


def row(system: str, variant: Variant, *, change: float) -> RunRow:
    def replies(reward: float) -> list[Graded]:
        parts = {"fidelity": reward, "gate_fidelity": reward}
        return [Graded(number, "de", "create", reward, parts, num_tokens=4) for number in range(2)]

    steps = [step(1, reward=0.5, num_groups=2)] if system != TRL else []
    points = [Point(1.0, 8, 0.5, {}), Point(2.0, 16, 0.75, {})]
    own = [view.model_dump() for view in steps]
    return RunRow(system, variant, "succeeded", None, 2.0, points, replies(0.5), replies(0.5 + change), own)


def test_a_budget_keeps_a_margin_for_the_end() -> None:
    """100 s, one of which passes at every look: 99 - 10 allows 89 and, a second later, not 89 again."""
    clock = count(0).__next__
    budget = Budget(100.0, clock=lambda: float(clock()))
    assert budget.allows(89.0)
    assert not budget.allows(89.0)
    assert Budget(None).allows(1e9)


def test_the_plan_has_every_run_with_its_seconds() -> None:
    """A step is 2 x 4 x 16 = 128 tokens, an exam 8 x 2 x 16 = 256 at three times the speed.

    At 128 tokens per second: exam 256 / 384 = 0.667 s; run 10 + 2 x 0.667 = 11.333 s; staleness 5 + 1.333 = 6.333 s;
    TRL 60 + 11.333 s.
    """
    phases = plan_of(options(), Pace(128.0))
    assert [phase.name for phase in phases] == [
        "run, seed 0",
        "run, seed 1",
        "run, staleness 0, none, seed 0",
        "run, staleness 8, none, seed 0",
        "run, staleness 0, token_truncate, seed 0",
        "run, staleness 8, token_truncate, seed 0",
        "TRL, 1 seeds",
    ]
    seconds = [phase.estimate_s for phase in phases]
    assert seconds == pytest.approx([34 / 3] * 2 + [19 / 3] * 4 + [60 + 34 / 3])


def test_the_default_command_fits_eight_minutes_on_a_gpu() -> None:
    """A second per step of 64 replies of 64 tokens: 3 x 60 s, and six exams of 128 x 2 replies, 1.3 s each."""
    default = options(
        num_held_out=128,
        seeds=(0, 1, 2),
        num_steps=60,
        prompts_per_step=8,
        group_size=8,
        max_tokens=64,
        staleness=(),
        against_trl=False,
    )
    total_s = sum(phase.estimate_s for phase in plan_of(default, Pace.assumed(on_cpu=False)))
    assert total_s == pytest.approx(3 * 60 + 6 * 4 / 3)
    assert total_s < 480


def test_the_node_keeps_old_versions_and_trains_on_every_prompt() -> None:
    """Eight steps behind needs nine versions and the newest; prompts of live traffic are in a language of their own."""
    config = node_settings(options(), 100, on_cpu=True).config
    assert config.tuning.keep_adapters == 10
    assert config.tuning.checkpoint_every == 0
    assert config.store.held_out_share == 0.0
    assert config.rewards.weights == {
        "fidelity": 1.0,
        "length": 0.5,
        "repetition": 0.5,
        "substance": 0.0,
        "fluency": 0.5,
        **FAULT_WEIGHTS,
    }
    assert set(config.tenants[0].languages) == {"de", "en", "fi"}
    assert config.engine.max_model_len >= 100 + 16


def test_a_curve_counts_all_that_was_sampled() -> None:
    """Two and three groups of four replies: 8, then 20 samples. Parts that are no number are left out."""
    points = points_of([step(1, reward=0.25, num_groups=2), step(2, reward=0.5, num_groups=3)], [1.0, 3.0], 4)
    assert [(point.at_s, point.num_samples, point.reward) for point in points] == [(1.0, 8, 0.25), (3.0, 20, 0.5)]
    assert points[0].parts == {"fidelity": 1.0}


def test_results_are_written_after_every_run(tmp_path: Path) -> None:
    """JSON, charts and Markdown are there before the bench has ended; every seed's change stands in the table."""
    report = Report("learn", tmp_path, Console(quiet=True), {}, command="coloq bench learn")
    results = LearnResults(report)
    for seed, change in ((0, 0.25), (1, -0.125)):
        results.add(row("coloq", Variant(seed, 2), change=change))
    results.add(row(TRL, Variant(0, 2), change=0.0))
    for lag in (0, 4):
        results.add(row("coloq", Variant(0, 2, lag, "none"), change=0.125))
    text = (tmp_path / "learn.md").read_text(encoding="utf-8")
    # 0.5 before; after 0.75 and 0.375, 0.562 on average.
    de = "| de | 0.500 | 0.562 | +0.250, -0.125 | 0.500 | 0.562 | +0.250, -0.125 | 0.500 | 0.562 | +0.250, -0.125 |"
    assert de in text
    assert "| 4 | none | succeeded | 0.125 | 0.500 | 0.250 | 0.500 |" in text
    assert "`coloq bench learn`" in text
    content = json.loads((tmp_path / "learn.json").read_text(encoding="utf-8"))
    assert content["failure"] == "not finished"
    assert [len(run["after"]) for run in content["runs"]] == [2] * 5
    charts = ("changes", "curves", "held-out", "languages", "staleness")
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [f"learn-{name}.png" for name in charts]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--against", "vllm"], "--against: must be trl"),
        (["--seeds", "0,x"], "--seeds: must be whole numbers"),
        (["--seeds", ""], "--seeds: must be at least one number"),
        (["--correction", "half"], "--correction: must be of none, token_truncate"),
        (["--trl-microbatch", "48"], "--trl-microbatch: must divide the 64 replies"),
    ],
)
def test_wrong_options_are_refused_before_anything_starts(words: list[str], said: str) -> None:
    """The message names the option and the rule; no model is fetched for it."""
    outcome = CliRunner().invoke(app, ["bench", "learn", *words])
    assert outcome.exit_code != 0
    assert said in " ".join(outcome.output.split())
