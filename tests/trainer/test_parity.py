"""Engine against trainer, token by token."""

import math

import pytest

from agent.errors import ModelError, ParityFailed
from agent.fakes import CharEncoder, FakeEngine
from agent.ports import Priority
from trainer.fakes import FakeTrainer
from trainer.parity import PROBE_TEXTS, ParityProbe


def _probe(engine_logprob: float, trainer_logprob: float) -> tuple[ParityProbe, FakeEngine]:
    engine = FakeEngine(lambda request: "abc", logprob=engine_logprob)
    return ParityProbe(engine, FakeTrainer(logprob=trainer_logprob), CharEncoder(), max_mean=0.1), engine


async def test_a_difference_within_the_bound_passes() -> None:
    """Six prompts of three letters and a stop token: 24 tokens, each 0.0625 apart."""
    probe, engine = _probe(-0.5, -0.5625)
    report = await probe.check(7)
    assert (report.num_tokens, report.mean, report.max) == (24, 0.0625, 0.0625)
    assert len(engine.requests) == len(PROBE_TEXTS)
    assert {(r.policy_version, r.priority, r.sampling.temperature) for r in engine.requests} == {
        (7, Priority.PROBE, 1.0)
    }


async def test_a_difference_above_the_bound_fails() -> None:
    """In either direction; the message has the bound, what came, and the version."""
    for trainer_logprob in (-0.75, -0.25):
        probe, _ = _probe(-0.5, trainer_logprob)
        with pytest.raises(ParityFailed, match=r"at most 0.1, got 0.25 over 24 tokens of version 7"):
            await probe.check(7)


async def test_a_difference_that_is_no_number_fails() -> None:
    """NaN is not above any bound, and must not pass for it."""
    probe, _ = _probe(-0.5, math.nan)
    with pytest.raises(ParityFailed, match="got nan"):
        await probe.check(7)


async def test_a_fresh_engine_that_computes_its_model_passes() -> None:
    """Rounding alone, up to half a nat; what the policy's own bound is does not matter."""
    probe, engine = _probe(-0.5, -0.9)
    report = await probe.check_base(6, longest=100)
    assert report.mean == pytest.approx(0.4)
    assert {request.policy_version for request in engine.requests} == {0}


@pytest.mark.parametrize("trainer_logprob", [-7.8, math.nan])
async def test_a_fresh_engine_that_computes_something_else_is_refused(trainer_logprob: float) -> None:
    """The message says by how much, and which settings to try."""
    probe, _ = _probe(-0.5, trainer_logprob)
    with pytest.raises(ModelError, match=r"24 tokens differ .* engine\.cuda_graphs = \"piecewise\""):
        await probe.check_base(6, longest=100)


async def test_a_start_check_mixes_prompts_of_many_lengths() -> None:
    """Forty prompts in three waves, none longer than allowed, hardly two alike, each asked once."""
    probe, engine = _probe(-0.5, -0.5)
    report = await probe.check_base(40, longest=160)
    assert report.num_tokens == 40 * 4
    prompts = [request.prompt_token_ids for request in engine.requests]
    assert len(prompts) == len({request.request_id for request in engine.requests}) == 40
    assert max(map(len, prompts)) == 160
    assert len(set(map(len, prompts))) > 5
    assert len(set(prompts)) > 20
