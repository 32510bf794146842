"""TRL as a peer: its settings, what it measures, and a real run with transformers' own generation."""

from dataclasses import replace
from pathlib import Path

import pytest

from service.bench.peers.failure import PeerFailed
from service.bench.peers.recorder import Recorder
from service.bench.peers.trl import TrlResult, TrlSettings, TrlStep, run_trl
from service.bench.peers.trl_grpo import completion_ids, parse_arguments
from tests.tiny_model import save_tiny_llama

SETTINGS = TrlSettings(
    model="tiny",
    prompts_per_step=2,
    group_size=2,
    prompt_tokens=24,
    reply_tokens=4,
    steps=3,
    rank=8,
    microbatch=2,
    generation="hf",
    dtype="float32",
)


def test_settings_survive_the_command_line() -> None:
    """Every field is an option of the program, flags too."""
    settings = replace(SETTINGS, method="full", liger=True, vllm_memory=0.25, vllm_arguments='{"enforce_eager": true}')
    assert parse_arguments([*settings.arguments(), "--out", "x.json"]) == (settings, Path("x.json"))


def test_a_batch_that_micro_batches_do_not_fill_is_refused() -> None:
    """TRL would not start: 2 prompts of 2 replies are 4 sequences."""
    with pytest.raises(ValueError, match="must be a multiple of microbatch, got 4 and 3"):
        replace(SETTINGS, microbatch=3)


def test_a_run_of_warm_up_steps_alone_is_refused() -> None:
    """Nothing would be measured."""
    with pytest.raises(ValueError, match="must be more than the 2 of the warm-up, got 2"):
        replace(SETTINGS, steps=2)


def test_the_summary_leaves_the_warm_up_out() -> None:
    """Steps 3 and 4 take 2 and 4 s for 100 and 200 tokens: 150 tokens in 3 s are 50 a second."""
    times = ((90.0, 1), (80.0, 1), (2.0, 100), (4.0, 200))
    steps = tuple(TrlStep(total, 0.5, 1.0, 0.0, total - 1.5, 4, tokens) for total, tokens in times)
    summary = TrlResult(settings={}, steps=steps).summary()
    assert summary["total_s"] == 3.0
    assert summary["train_s"] == 1.5
    assert summary["tokens_per_s"] == 50.0
    assert TrlResult(settings={}, steps=steps[:2]).summary() == {}


def test_the_recorder_tells_phases_apart() -> None:
    """A step from 10 to 20 s: 4 s of generating, 1 s of them for the weights; 0.5 s of scores; so 5.5 s of training."""
    #               begin  gen   sync  sync  gen   score score end
    times = iter([10.0, 11.0, 11.0, 12.0, 15.0, 15.0, 15.5, 20.0])
    saved: list[tuple[TrlStep, ...]] = []
    recorder = Recorder(save=saved.append, clock=lambda: next(times))
    recorder.begin()
    with recorder.phase("generation"):
        with recorder.phase("sync"):
            pass
        recorder.sampled([7, 8])
    with recorder.phase("score"):
        pass
    recorder.end()
    assert recorder.steps == [
        TrlStep(total_s=10.0, sync_s=1.0, generation_s=3.0, score_s=0.5, train_s=5.5, num_sequences=2, num_tokens=15)
    ]
    assert saved == [tuple(recorder.steps)]


def test_replies_are_found_in_what_trl_returns() -> None:
    """First of two, or second where the prompts' ids come first."""
    assert completion_ids(([[5]], None)) == [[5]]
    assert completion_ids(([[1]], [[5]], None)) == [[5]]


async def test_trl_trains_on_as_many_tokens_as_were_asked_for(tmp_path: Path) -> None:
    """Two prompts with two replies of 4 tokens are 16 tokens a step, and one step of three is measured."""
    result = await run_trl(replace(SETTINGS, model=str(save_tiny_llama(tmp_path / "tiny"))), timeout_s=240)
    assert result.error is None
    assert [step.num_tokens for step in result.steps] == [16, 16, 16]
    (measured,) = result.measured
    phases = measured.sync_s + measured.generation_s + measured.score_s + measured.train_s
    assert phases == pytest.approx(measured.total_s)
    assert min(measured.generation_s, measured.score_s, measured.train_s) > 0
    assert measured.sync_s == 0.0
    assert result.device == "cpu"


@pytest.mark.engine
async def test_trl_samples_with_the_weights_that_it_trains(tmp_path: Path) -> None:
    """In colocate mode the new weights are written into vLLM before every step's replies."""
    model = save_tiny_llama(tmp_path / "tiny")
    settings = replace(
        SETTINGS,
        model=str(model),
        generation="vllm",
        vllm_memory=0.1,
        vllm_arguments='{"enforce_eager": true, "max_num_seqs": 4}',
    )
    result = await run_trl(settings, timeout_s=240)
    assert [step.num_tokens for step in result.steps] == [16, 16, 16]
    assert all(step.sync_s > 0 for step in result.steps)


async def test_a_run_that_fails_says_why(tmp_path: Path) -> None:
    """A folder without a model: the error is the peer's own."""
    with pytest.raises(PeerFailed, match="ended with status 1") as failure:
        await run_trl(replace(SETTINGS, model=str(tmp_path)), timeout_s=240)
    assert '"error": "' in str(failure.value)
