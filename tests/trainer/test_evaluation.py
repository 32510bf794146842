"""The gate: a candidate against the policy that it would replace, language by language."""

from collections import Counter
from dataclasses import replace

import pytest

from agent.completion import Completion
from agent.errors import GateRejected, PromptTooLong
from agent.fakes import FakeEngine, MemoryJournal
from agent.ports import GenerateRequest
from rewards.score import Sample, Ungradable
from tests.trainer.samples import episode
from tests.trainer.tuning import CONTRACT, Judge, panel_of
from trainer.evaluation import Evaluator
from trainer.fakes import FakeAdmission
from trainer.records import Evaluation
from trainer.rollout import RolloutSampler

TEXTS = {
    "de": "Dieser Satz ist auf Deutsch geschrieben.",
    "pl": "To zdanie jest napisane po polsku.",
    "en": "This sentence was written in English.",
}
CANDIDATE, BASELINE = 2, 1


def _evaluator(
    engine: FakeEngine, judge: Judge, *, languages: tuple[str, ...] = ("de", "pl"), min_determined: int = 1
) -> Evaluator:
    """All episodes are held out: two of each language."""
    episodes = [episode(number, language) for language in languages for number in (1, 2)]
    return Evaluator(
        journal=MemoryJournal(episodes, held_out_share=1.0),
        sampler=RolloutSampler(engine),
        panel=panel_of(judge),
        admission=FakeAdmission(),
        second_opinion=CONTRACT,
        temperature=0.7,
        num_prompts=4,
        margin=0.05,
        min_determined=min_determined,
    )


async def _compare(evaluator: Evaluator) -> Evaluation:
    return await evaluator.compare(CANDIDATE, BASELINE, languages=("de", "pl"), max_tokens=64, seed=5)


def _engine(candidate_texts: dict[int, str] | None = None) -> FakeEngine:
    """Prompts of either language are numbered 1 and 2, so texts tell versions apart, not languages.

    Replies are German unless ``candidate_texts`` has another text for a prompt of the candidate.
    """

    def reply(request: GenerateRequest) -> str:
        number, *_ = request.prompt_token_ids
        text = TEXTS["de"]
        if request.policy_version == CANDIDATE and candidate_texts:
            text = candidate_texts.get(number, text)
        return f"{text} v{request.policy_version}."

    return FakeEngine(reply)


def _rewards(candidate: float, baseline: float, *, only: str | None = None) -> Judge:
    """A judge of versions; ``only`` names the language in which they differ."""

    def judge(sample: Sample) -> float:
        differs = only is None or sample.brief.language == only
        return candidate if differs and f"v{CANDIDATE}" in sample.text else baseline

    return judge


async def test_replies_are_judged_in_pieces_that_are_admitted() -> None:
    """Ten held-out replies of each policy are judged eight and two at a time, each time after asking."""
    episodes = [episode(number, "de") for number in range(1, 11)]
    sizes: list[int] = []

    def reward(sample: Sample) -> float:
        sizes.append(admission.num_asked)
        return 0.5

    admission = FakeAdmission()
    evaluator = replace(
        _evaluator(FakeEngine(lambda request: TEXTS["de"]), reward),
        journal=MemoryJournal(episodes, held_out_share=1.0),
        num_prompts=10,
        admission=admission,
    )
    await _compare(evaluator)
    assert Counter(sizes) == {1: 8, 2: 2, 3: 8, 4: 2}


async def test_a_better_candidate_passes() -> None:
    """Mean rewards of both, by language; both replies are wholly German, so German prompts have a share of 1."""
    engine = _engine()
    evaluation = await _compare(_evaluator(engine, _rewards(0.8, 0.6)))
    assert evaluation.rejected == {}
    assert (evaluation.version, evaluation.baseline_version) == (CANDIDATE, BASELINE)
    assert [evaluation.reward, evaluation.baseline_reward] == pytest.approx([0.8, 0.6])
    assert evaluation.by_language == {"de": (0.8, 0.6), "pl": (0.8, 0.6)}
    assert evaluation.fidelity["de"] == (1.0, 1.0)


async def test_both_versions_get_the_same_prompts_and_seeds() -> None:
    """What differs between them is the policy alone."""
    engine = _engine()
    await _compare(_evaluator(engine, _rewards(0.5, 0.5)))
    asked = {
        version: [(r.prompt_token_ids, r.sampling) for r in engine.requests if r.policy_version == version]
        for version in (CANDIDATE, BASELINE)
    }
    assert asked[CANDIDATE] == asked[BASELINE]
    assert len(asked[CANDIDATE]) == 4
    assert {sampling.temperature for _, sampling in asked[CANDIDATE]} == {0.7}


async def test_a_baseline_may_be_judged_long_before() -> None:
    """The exam stays the same while the journal grows; the verdict is that of a comparison at one time."""
    engine = _engine()
    evaluator = _evaluator(engine, _rewards(0.8, 0.6))
    exam = await evaluator.exam(("de", "pl"), max_tokens=64, seed=5)
    baseline = await evaluator.judge(exam, BASELINE)
    await evaluator.journal.append(episode(3))
    evaluation = evaluator.verdict(await evaluator.judge(exam, CANDIDATE), baseline)
    assert evaluation == await _compare(_evaluator(_engine(), _rewards(0.8, 0.6)))
    asked = {
        version: [r.prompt_token_ids for r in engine.requests if r.policy_version == version]
        for version in (CANDIDATE, BASELINE)
    }
    assert asked[CANDIDATE] == asked[BASELINE]


@pytest.mark.parametrize(("candidate", "passes"), [(0.56, True), (0.54, False)])
async def test_a_candidate_may_be_worse_by_the_margin_only(candidate: float, passes: bool) -> None:
    """The baseline has 0.6 and the margin is 0.05."""
    evaluation = await _compare(_evaluator(_engine(), _rewards(candidate, 0.6)))
    assert (evaluation.rejected == {}) is passes


async def test_one_language_is_enough_to_fail() -> None:
    """Polish fell from 0.6 to 0.4; that German is as good as before does not make up for it."""
    evaluation = await _compare(_evaluator(_engine(), _rewards(0.4, 0.6, only="pl")))
    assert evaluation.rejected == {"pl": "reward fell from 0.600 to 0.400, more than 0.05"}


async def test_a_language_that_is_left_fails_whatever_the_reward() -> None:
    """One of two German prompts is answered in English: the share falls from 1 to 0.5 although the reward rose."""
    evaluator = _evaluator(_engine({1: TEXTS["en"]}), _rewards(0.9, 0.6), languages=("de",))
    evaluation = await _compare(evaluator)
    assert evaluation.fidelity == {"de": (0.5, 1.0)}
    assert evaluation.rejected == {"de": "language fidelity fell from 1.000 to 0.500, more than 0.05"}


async def test_a_share_of_too_few_replies_says_nothing() -> None:
    """Two determined replies are below the three that are asked for: their share is neither reported nor judged."""
    evaluator = _evaluator(_engine({1: TEXTS["en"]}), _rewards(0.9, 0.6), languages=("de",), min_determined=3)
    evaluation = await _compare(evaluator)
    assert (evaluation.fidelity, evaluation.rejected) == ({}, {})


async def test_a_candidate_that_cannot_be_graded_in_a_language_fails_there() -> None:
    """No number stands for what could not be judged."""

    def judge(sample: Sample) -> float | Ungradable:
        unfit = sample.brief.language == "pl" and f"v{CANDIDATE}" in sample.text
        return Ungradable("a parse failure", "fake@1") if unfit else 0.5

    evaluation = await _compare(_evaluator(_engine(), judge))
    assert evaluation.rejected == {"pl": "no reply of the candidate could be graded"}


async def test_without_held_out_prompts_nothing_passes() -> None:
    """The message says what an operator can do."""
    with pytest.raises(GateRejected, match="held-out prompts in de, pl, the journal has none: send more requests"):
        await _compare(_evaluator(_engine(), _rewards(1, 0), languages=("fr",)))


async def test_without_any_grade_nothing_passes() -> None:
    """A judge that is down rejects; it does not wave through."""
    evaluator = _evaluator(_engine(), lambda sample: Ungradable("down", "fake@1"))
    with pytest.raises(GateRejected, match="none of 4 held-out replies of version 2 could be graded"):
        await _compare(evaluator)


class _NarrowEngine(FakeEngine):
    """Has no room for prompt 2."""

    async def generate(self, request: GenerateRequest) -> Completion:
        if request.prompt_token_ids[0] == 2:
            raise PromptTooLong("no room")
        return await super().generate(request)


async def test_a_prompt_without_room_for_a_reply_is_left_out() -> None:
    """Of both versions, so they are still compared on the same prompts."""
    engine = _NarrowEngine(lambda request: f"{TEXTS['de']} v{request.policy_version}.")
    evaluation = await _compare(_evaluator(engine, _rewards(0.8, 0.6)))
    assert evaluation.rejected == {}
    assert len(engine.requests) == 4
