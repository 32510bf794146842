"""Sibling rollouts: what the engine is asked for, and what becomes of its errors."""

import pytest

from agent.completion import Completion, Sampling
from agent.errors import EngineDead, PromptTooLong
from agent.fakes import FakeEngine
from agent.ports import GenerateRequest, Priority
from tests.trainer.samples import episode
from trainer.rollout import RolloutSampler

SAMPLING = Sampling(max_tokens=5, temperature=0.9, top_p=0.8, top_k=7, min_p=0.1, seed=100, stop=("x",))


async def test_every_sibling_is_its_own_request() -> None:
    """Logged prompt, low priority, the candidate's version, the tenant's cache, and a seed of its own."""
    engine = FakeEngine(lambda request: str(request.sampling.seed))
    groups = await RolloutSampler(engine).siblings(
        [episode(3), episode(4)], version=9, group_size=2, sampling=SAMPLING, label="r"
    )
    assert [[sibling.text for sibling in group] for group in groups] == [["100", "101"], ["102", "103"]]
    assert [request.request_id for request in engine.requests] == ["r-0-0", "r-0-1", "r-1-0", "r-1-1"]
    assert [request.prompt_token_ids for request in engine.requests] == [(3,), (3,), (4,), (4,)]
    assert {(r.priority, r.policy_version, r.cache_scope) for r in engine.requests} == {(Priority.ROLLOUT, 9, "acme")}


async def test_sampling_parameters_reach_the_engine() -> None:
    """All of them, so that what was sampled from is what the completion says."""
    engine = FakeEngine(lambda request: "")
    await RolloutSampler(engine).siblings([episode(3)], version=9, group_size=1, sampling=SAMPLING, label="r")
    assert engine.requests[0].sampling == SAMPLING


async def test_an_engine_error_reaches_the_caller_as_itself() -> None:
    """Not as a group of exceptions, which nobody handles by type."""
    engine = FakeEngine(lambda request: "")
    engine.failure = EngineDead("gone")
    with pytest.raises(EngineDead, match="gone"):
        await RolloutSampler(engine).siblings([episode(3)], version=1, group_size=4, sampling=SAMPLING, label="r")


class _NarrowEngine(FakeEngine):
    """Has no room for prompt 4."""

    async def generate(self, request: GenerateRequest) -> Completion:
        if request.prompt_token_ids == (4,):
            raise PromptTooLong("no room")
        return await super().generate(request)


async def test_a_prompt_without_room_for_a_reply_has_an_empty_group() -> None:
    """One long prompt in the journal does not end every run that draws it."""
    groups = await RolloutSampler(_NarrowEngine(lambda request: "a")).siblings(
        [episode(3), episode(4)], version=1, group_size=2, sampling=SAMPLING, label="r"
    )
    assert [len(group) for group in groups] == [2, 0]
