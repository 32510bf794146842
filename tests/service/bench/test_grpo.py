"""GRPO end to end: the same work for a node and for TRL, and a step's time by phases. A node itself takes a minute:
`coloq bench train --quick --against trl`."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.brief import Brief, Kind
from agent.contract import LanguageContract
from agent.language import FastTextDetector
from agent.prompt import PromptLibrary
from rewards.config import FAULT_WEIGHTS
from rewards.panel import build_panel
from service.bench.client import LANGUAGE
from service.bench.failure import BenchFailed
from service.bench.grpo import GrpoReport, NodeRun, measured_steps, trl_settings, tuning_overrides
from service.bench.node import TENANT, NodeSettings
from service.bench.shape import SHAPES, write_model
from service.encoder import ChatEncoder
from service.http.tuning_schema import RunView
from trainer.records import RunRequest, RunState, RunStatus, StepReport

OVERRIDES = tuning_overrides(
    method="adapter", prompts_per_step=2, group_size=4, reply_tokens=8, microbatch_tokens=128, rank=8
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> NodeRun:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_model(SHAPES["tiny"], folder)
    return NodeRun(NodeSettings(folder, 64, 8, True, OVERRIDES), num_steps=3, publish_every=1, seed=0, timeout_s=60)


def step_report(step: int) -> StepReport:
    return StepReport(
        step=step,
        version=step,
        num_sequences=8,
        num_tokens=64,
        reward_mean=0.5,
        reward_std=0.1,
        reward_by_language={"en": 0.5},
        parts={},
        dropped={},
        loss=0.0,
        grad_norm=1.0,
        clip_fraction=0.0,
        effective_sample_size=1.0,
        mismatch_mean=0.0,
        rollout_s=1.0,
        score_s=0.25,
        train_s=0.5,
        install_s=0.125,
    )


def view(state: RunState, num_steps: int) -> RunView:
    steps = tuple(step_report(number) for number in range(1, num_steps + 1))
    now = datetime(2025, 1, 1, tzinfo=UTC)
    return RunView.of(RunStatus("run", state, RunRequest(), now, now, num_steps, steps, (), None, "a reason"))


def test_both_sides_do_the_same_work(run: NodeRun) -> None:
    """TRL gets method, counts, rank and type from the node's own configuration."""
    peer = trl_settings(run, microbatch=4, vllm_memory=0.3, vllm_arguments="{}", liger=False)
    assert (peer.method, peer.rank, peer.alpha, peer.microbatch) == ("adapter", 8, 32.0, 4)
    assert (peer.prompts_per_step, peer.group_size, peer.steps) == (2, 4, 3)
    assert (peer.prompt_tokens, peer.reply_tokens, peer.dtype) == (64, 8, "float32")


def test_the_nodes_panel_is_the_peers(run: NodeRun) -> None:
    """The overrides name judges that exist, and no prompt is held out."""
    config = run.settings.config
    build_panel(config.rewards, config.tenants, LanguageContract(FastTextDetector()))
    judged = {name for name, weight in config.rewards.weights.items() if weight}
    assert judged == {"spread", "length", "repetition", "substance"} | FAULT_WEIGHTS.keys()
    assert config.store.held_out_share == 0.0


def test_every_step_has_prompts_of_the_asked_length(run: NodeRun) -> None:
    """Two prompts for each of three steps, of 64 tokens with the templates around them."""
    encoder, library = ChatEncoder.load(str(run.settings.model)), PromptLibrary.load()
    briefs = run.briefs()
    assert len(set(briefs)) == 6
    for instructions in briefs:
        prompt = library.render(Brief(TENANT, Kind.CREATE, LANGUAGE, instructions=instructions))
        assert len(encoder.encode(prompt.system, prompt.user)) == 64


def test_a_length_below_the_templates_is_refused(run: NodeRun) -> None:
    """The option to change is named."""
    short = NodeRun(NodeSettings(run.settings.model, 5, 8, True, OVERRIDES), 3, 1, 0, 60)
    with pytest.raises(BenchFailed, match="--prompt-tokens: a prompt must be able to have 5 tokens"):
        short.briefs()


def test_a_step_lasts_from_report_to_report() -> None:
    """Reports at 1, 3, 6 and 8 s: steps 3 and 4 took 3 and 2 s, 1.875 s of each in phases; the rest is publication."""
    steps = measured_steps(view(RunState.SUCCEEDED, 4), [1.0, 3.0, 6.0, 8.0])
    assert [step.total_s for step in steps] == [3.0, 2.0]
    assert [step.other_s for step in steps] == [1.125, 0.125]
    summary = GrpoReport(steps).summary()
    assert summary["total_s"] == 2.5
    assert summary["tokens_per_s"] == pytest.approx(64 / 2.5)


def test_a_failed_run_is_no_measurement() -> None:
    """Its reason is the error's."""
    with pytest.raises(BenchFailed, match="must succeed, got failed: a reason"):
        measured_steps(view(RunState.FAILED, 4), [1.0, 2.0, 3.0, 4.0])


def test_older_configurations_name_the_type_otherwise(tmp_path: Path) -> None:
    """`torch_dtype` as well as `dtype`."""
    from service.bench.grpo import stored_dtype

    (tmp_path / "config.json").write_text('{"torch_dtype": "bfloat16"}')
    assert stored_dtype(tmp_path) == "bfloat16"
