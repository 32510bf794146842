"""What a step draws: logged groups, sampled groups, refills, and what is counted on the way."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from agent.completion import Completion, Sampling
from agent.episode import Episode
from agent.errors import PromptTooLong, TuningError
from agent.ports import GenerateRequest
from agent.repair import Repair, RepairAttempt, RepairMethod, RepairOutcome
from rewards.parts import PartsRequest
from rewards.score import Sample
from tests.trainer.samples import completion, episode
from tests.trainer.tuning import CONFIG, Node, even_is_better
from trainer.config import TuningConfig
from trainer.draw import Drawn, GroupSource
from trainer.group import TrainingSequence
from trainer.lineage import Lineage
from trainer.plan import RunPlan
from trainer.records import RunRequest


def _plan(config: TuningConfig = CONFIG, **change: float) -> RunPlan:
    return RunPlan.of(RunRequest(), config.model_copy(update=change), ("de", "pl"))


def _source(node: Node) -> GroupSource:
    return GroupSource(node.journal, node.loop.sampler, node.loop.panel, node.admission)


def _logged(number: int, *, versions: Sequence[int], sampling: Sampling | None = None, language: str = "de") -> Episode:
    """A request that asked for several texts: ``a0``, ``a1`` and so on, which score 1, 0, 1 …"""
    siblings = [
        completion((7 + index,), version=version, text=f"a{index}", sampling=sampling)
        for index, version in enumerate(versions)
    ]
    return episode(number, language, siblings=tuple(siblings))


def _texts(drawn: Drawn) -> list[str]:
    return [sequence.completion.text for sequence in drawn.sequences]


async def test_a_request_with_several_samples_is_a_group_without_sampling(tmp_path: Path) -> None:
    """Two logged groups of two fill a step of two prompts: the engine is asked for nothing."""
    node = Node(tmp_path, [_logged(1, versions=(3, 3)), _logged(2, versions=(2, 3), language="pl")])
    drawn = await _source(node).draw(1, Lineage(3), _plan())
    assert node.engine.requests == []
    assert (drawn.num_logged_groups, drawn.num_sampled_groups) == (2, 0)
    assert _texts(drawn) == ["a0", "a1", "a0", "a1"]
    assert drawn.dropped == {}
    # One token each, of versions 3, 3, 2 and 3 at a step that begins with 3: (0 + 0 + 1 + 0) / 4.
    assert (drawn.staleness_mean, drawn.staleness_max) == (0.25, 1)


async def test_a_logged_group_is_used_once(tmp_path: Path) -> None:
    """Its prompt comes again, and then siblings are sampled."""
    node = Node(tmp_path, [_logged(1, versions=(3, 3))])
    source, plan = _source(node), _plan(prompts_per_step=1)
    first = await source.draw(1, Lineage(3), plan)
    await node.journal.settle(first.claims)
    second = await source.draw(2, Lineage(3), plan)
    assert (first.num_logged_groups, first.num_sampled_groups) == (1, 0)
    assert (second.num_logged_groups, second.num_sampled_groups) == (0, 1)
    assert len(node.engine.requests) == 2


async def test_samples_of_a_reply_with_sentences_put_in_are_not_trained_on(tmp_path: Path) -> None:
    """The prompt is drawn and sampled anew; both logged samples are counted."""
    repair = Repair((RepairAttempt(RepairMethod.SENTENCE, RepairOutcome.REPAIRED),), text="a0, mended")
    mended = replace(_logged(1, versions=(3, 3)), repair=repair)
    drawn = await _source(Node(tmp_path, [mended])).draw(1, Lineage(3), _plan(prompts_per_step=1))
    assert (drawn.num_logged_groups, drawn.num_sampled_groups) == (0, 1)
    assert drawn.dropped == {"repaired": 2}


@pytest.mark.parametrize(
    ("logged", "dropped"),
    [
        (_logged(1, versions=(0, 0)), {"stale": 2}),
        (_logged(1, versions=(9, 9)), {"unknown_version": 2}),
        (_logged(1, versions=(9, 8)), {"unknown_version": 1, "single": 1}),
        (_logged(1, versions=(8, 8), sampling=Sampling(16, top_p=0.9)), {"top_p": 2}),
        (_logged(1, versions=(8, 8), sampling=Sampling(16, temperature=0.7)), {"other_temperature": 2}),
    ],
)
async def test_logged_samples_that_are_unfit_are_counted_and_sampled_anew(
    tmp_path: Path, logged: Episode, dropped: dict[str, int]
) -> None:
    """The step begins with version 8 and takes at most four versions of staleness, temperature 1, the whole softmax."""
    drawn = await _source(Node(tmp_path, [logged])).draw(1, Lineage(8), _plan(prompts_per_step=1))
    assert (drawn.num_logged_groups, drawn.num_sampled_groups) == (0, 1)
    assert drawn.dropped == dropped
    assert len(drawn.sequences) == 2


async def test_unfit_siblings_of_a_logged_group_are_left_out(tmp_path: Path) -> None:
    """Of three samples the stale one is counted, and the other two are the group."""
    node = Node(tmp_path, [_logged(1, versions=(8, 8, 1))])
    drawn = await _source(node).draw(1, Lineage(8), _plan(prompts_per_step=1))
    assert (_texts(drawn), drawn.dropped) == (["a0", "a1"], {"stale": 1})


async def test_a_request_with_one_sample_is_not_counted_as_dropped(tmp_path: Path) -> None:
    """However old its reply is, it was never a candidate: only its prompt is used."""
    drawn = await _source(Node(tmp_path, [episode(1), episode(2)])).draw(1, Lineage(100), _plan())
    assert (drawn.dropped, drawn.num_sampled_groups) == ({}, 2)
    assert (drawn.staleness_mean, drawn.staleness_max) == (0.0, 0)


class _Delegate:
    """Counts the replies of each call, and leaves the judging to the panel."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def judge(self, requests: Sequence[PartsRequest]) -> None:
        self.calls.append(len(requests))


async def test_a_delegate_gets_all_groups_at_once(tmp_path: Path) -> None:
    """The groups and their scores are those of a draw without it, which judges one group after the other."""
    logged = [_logged(1, versions=(3, 3)), _logged(2, versions=(2, 3, 3), language="pl")]
    alone = await _source(Node(tmp_path / "alone", logged)).draw(1, Lineage(3), _plan())
    node, delegate = Node(tmp_path / "helped", logged), _Delegate()
    node.loop.panel.delegate(delegate)
    helped = await _source(node).draw(1, Lineage(3), _plan())
    assert delegate.calls == [5]
    assert helped.groups == alone.groups


def _alike_for(*prompts: int) -> tuple[Callable[[GenerateRequest], str], Callable[[Sample], float]]:
    """Siblings of these prompts all score alike; of other prompts they do not."""

    def reply(request: GenerateRequest) -> str:
        return "same" if request.prompt_token_ids[0] in prompts else f"a{request.sampling.seed}"

    return reply, lambda sample: 0.5 if sample.text == "same" else even_is_better(sample)


async def test_groups_without_spread_are_refilled(tmp_path: Path) -> None:
    """Prompts 1 and 2 teach nothing: two more are claimed in their place, and their four replies are counted."""
    reply, judge = _alike_for(1, 2)
    node = Node(tmp_path, [episode(number) for number in range(1, 9)], reply=reply, judge=judge)
    drawn = await _source(node).draw(1, Lineage(0), _plan())
    assert [claim.episode.id for claim in drawn.claims] == ["de-1", "de-2", "de-3", "de-4"]
    assert {sequence.completion.prompt_token_ids for sequence in drawn.sequences} == {(3,), (4,)}
    assert (drawn.dropped, drawn.num_sampled_groups, len(drawn.groups)) == ({"no_spread": 4}, 4, 4)
    seeds = [request.sampling.seed for request in node.engine.requests]
    assert len(set(seeds)) == 8


@pytest.mark.parametrize(("budget", "num_claimed", "num_kept"), [(0.0, 2, 0), (0.5, 3, 1), (1.0, 4, 2), (4.0, 4, 2)])
async def test_refills_end_with_the_budget(tmp_path: Path, budget: float, num_claimed: int, num_kept: int) -> None:
    """Of a step's two prompts 0.5 is one more, 1 is two more; a step that is full draws no more."""
    reply, judge = _alike_for(1, 2)
    node = Node(tmp_path, [episode(number) for number in range(1, 9)], reply=reply, judge=judge)
    source, plan = _source(node), _plan(refill_budget=budget)
    if num_kept == 0:
        with pytest.raises(TuningError, match=r"nothing to learn from in 2 prompts.*'no_spread': 4"):
            await source.draw(1, Lineage(0), plan)
        return
    drawn = await source.draw(1, Lineage(0), plan)
    assert (len(drawn.claims), len(drawn.sequences)) == (num_claimed, 2 * num_kept)


async def test_a_journal_that_runs_out_leaves_a_smaller_step(tmp_path: Path) -> None:
    """One of two prompts teaches something and there is no third one: the step is taken with what there is."""
    reply, judge = _alike_for(1)
    node = Node(tmp_path, [episode(1), episode(2)], reply=reply, judge=judge)
    drawn = await _source(node).draw(1, Lineage(0), _plan())
    assert (len(drawn.claims), len(drawn.sequences), drawn.dropped) == (2, 2, {"no_spread": 2})


async def test_an_end_users_cap_holds_for_what_is_trained_on(tmp_path: Path) -> None:
    """A group that teaches nothing takes no place of its end user's half of four prompts: another of theirs may."""
    reply, judge = _alike_for(1)
    mine = [_of(episode(number), "u1") for number in range(1, 7)]
    others = [_of(episode(number), None) for number in range(11, 13)]
    node = Node(tmp_path, [*mine, *others], reply=reply, judge=judge)
    drawn = await _source(node).draw(1, Lineage(0), _plan(prompts_per_step=4))
    # Prompts 1 and 2 fill the half; 3 to 6 are passed over for 11 and 12; 1 is dropped, which frees one place, and one
    # of those that were passed over comes again for it.
    claimed = [claim.episode.id for claim in drawn.claims]
    assert claimed[:4] == ["de-1", "de-2", "de-11", "de-12"]
    assert claimed[4:] in [[f"de-{number}"] for number in range(3, 7)]
    assert drawn.passed_over == {"end_user_capped": 4}
    trained = Counter(sequence.completion.prompt_token_ids[0] <= 6 for sequence in drawn.sequences)
    assert trained == {True: 4, False: 4}


def _of(item: Episode, end_user: str | None) -> Episode:
    return replace(item, brief=replace(item.brief, end_user=end_user))


async def test_a_prompt_is_claimed_once_in_a_run_until_all_others_have_been(tmp_path: Path) -> None:
    """Prompt 1 was logged ten times and 2 to 4 once: four steps of one prompt draw four prompts, and then they come
    again."""
    repeats = [replace(episode(1), id=f"repeat-{number}") for number in range(10)]
    node = Node(tmp_path, [*repeats, *(episode(number) for number in range(2, 5))])
    source, plan = _source(node), _plan(prompts_per_step=1)
    drawn: list[Drawn] = []
    for step in range(1, 9):
        drawn.append(await source.draw(step, Lineage(0), plan))
        await node.journal.settle(drawn[-1].claims)
    prompts = [item.claims[0].episode.prompt_token_ids[0] for item in drawn]
    assert prompts[:4] == [1, 2, 3, 4]
    assert sorted(prompts[4:]) == [1, 2, 3, 4]
    assert [item.passed_over for item in drawn[:2]] == [{}, {"duplicate": 9}]


async def test_the_same_run_draws_the_same(tmp_path: Path) -> None:
    """Prompts, seeds and order follow from journal and seed; another seed draws prompts again in another order."""

    async def run(seed: int) -> list[tuple[tuple[int, ...], int | None]]:
        node = Node(tmp_path, [episode(number, language) for language in ("de", "pl") for number in range(1, 4)])
        source = _source(node)
        plan = RunPlan.of(RunRequest(seed=seed), CONFIG, ("de", "pl"))
        for step in range(1, 7):
            await node.journal.settle((await source.draw(step, Lineage(0), plan)).claims)
        return [(request.prompt_token_ids, request.sampling.seed) for request in node.engine.requests]

    assert await run(1) == await run(1)
    assert [prompt for prompt, _ in await run(1)] != [prompt for prompt, _ in await run(2)]


async def test_a_prompt_without_room_is_counted_and_refilled(tmp_path: Path) -> None:
    """The next one takes its place."""
    node = Node(tmp_path, [episode(number) for number in range(1, 4)])
    generate = node.engine.generate

    async def narrow(request: GenerateRequest) -> Completion:
        if request.prompt_token_ids == (1,):
            raise PromptTooLong("no room")
        return await generate(request)

    node.engine.generate = narrow  # type: ignore[method-assign]  # this one engine has a smaller window
    drawn = await _source(node).draw(1, Lineage(0), _plan())
    assert drawn.dropped == {"prompt_too_long": 1}
    assert [claim.episode.id for claim in drawn.claims] == ["de-1", "de-2", "de-3"]


def test_staleness_is_a_mean_over_tokens() -> None:
    """Three tokens two versions old and one token of the step's own: (3 * 2 + 1 * 0) / 4 = 1.5, at most 2."""
    sequences = [
        TrainingSequence(completion((1, 2, 3), version=5), 1.0, "de"),
        TrainingSequence(completion((1,), version=7), -1.0, "de"),
    ]
    drawn = Drawn(Lineage(7), (), (), sequences, 0, {}, {}, 0, 1, 0.0, 0.0)
    assert (drawn.staleness_mean, drawn.staleness_max) == (1.5, 2)
