"""`coloq bench train`: its options, its rows, and a quick run of the learner alone."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from agent.errors import InvalidInput
from service.bench.control import BatchShape
from service.bench.train import TrainOptions, node_row, trl_row
from service.bench.train_cli import train_command

APP = typer.Typer()
APP.command()(train_command)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--against", "vllm"], "--against: must be trl, got vllm"),
        (["--method", "lora"], "--method: must be of adapter, full, got lora"),
        (["--length", "64"], "--max-tokens: must be below --length 64, got 128"),
        (["--trl-microbatch", "7"], "--trl-microbatch: must divide the 64 replies of a step, got 7"),
    ],
)
def test_options_that_cannot_be_measured_are_refused(options: list[str], message: str) -> None:
    """Each names the option to change; nothing is started."""
    result = CliRunner().invoke(APP, options)
    assert isinstance(result.exception, InvalidInput)
    assert str(result.exception) == message


@pytest.mark.parametrize(("asked", "adapter", "full"), [(None, 1, 8), (2, 2, 2)])
def test_whole_weights_are_written_once(asked: int | None, adapter: int, full: int) -> None:
    """Each step of method full goes live at once, so that publishing it only fills the disk."""
    options = TrainOptions(
        methods=("adapter", "full"),
        batch=BatchShape(batch_size=4, length=64, reply_tokens=8),
        num_steps=0,
        microbatch_tokens=None,
        rank=8,
        against_trl=True,
        prompts_per_step=2,
        group_size=4,
        num_grpo_steps=8,
        publish_every=asked,
        trl_microbatch=4,
        vllm_memory=0.3,
        vllm_arguments="{}",
        liger=False,
        timeout_s=60.0,
    )
    assert (options.publishes_every("adapter"), options.publishes_every("full")) == (adapter, full)


def test_phases_of_both_systems_stand_in_one_order() -> None:
    """Sampling is a rollout, and writing weights into vLLM an installation; each side's phases add up to its step."""
    means = {"total_s": 10.0, "score_s": 1.0, "train_s": 2.0, "num_sequences": 4.0, "num_tokens": 50.0}
    node = node_row({**means, "rollout_s": 3.0, "install_s": 1.5, "other_s": 2.5, "tokens_per_s": 5.0}, "adapter")
    peer = trl_row({**means, "generation_s": 4.0, "sync_s": 3.0, "tokens_per_s": 5.0}, "adapter")
    assert node.phases_s == {"rollout": 3.0, "score": 1.0, "train": 2.0, "install": 1.5, "other": 2.5}
    assert peer.phases_s == {"rollout": 4.0, "score": 1.0, "train": 2.0, "install": 3.0, "other": 0.0}
    assert sum(node.phases_s.values()) == sum(peer.phases_s.values()) == 10.0


def test_a_quick_run_measures_the_learner(tmp_path: Path) -> None:
    """Two steps of 4 sequences of 64 tokens; the figures are in the file, beside the command's options."""
    words = ["--quick", "--method", "adapter", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    result = CliRunner().invoke(APP, words)
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "out" / "train.json").read_text())
    (row,) = written["learner"]
    assert (row["method"], row["num_tokens"], len(row["steps_s"])) == ("adapter", 256, 2)
    assert row["tokens_per_s"] > 0
    assert written["failure"] is None
    assert "Learner's step alone" in result.output
