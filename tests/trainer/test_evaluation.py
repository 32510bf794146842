"""The gate's exam: which prompts, which seeds, and what is measured of the replies."""

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
from trainer.config import GateConfig
from trainer.evaluation import Evaluator
from trainer.fakes import FakeAdmission
from trainer.gate_records import GateVerdict
from trainer.records import Evaluation
from trainer.rollout import RolloutSampler

TEXTS = {
    "de": "Dieser Satz ist auf Deutsch geschrieben.",
    "pl": "To zdanie jest napisane po polsku.",
    "en": "This sentence was written in English.",
}
CANDIDATE, BASELINE = 2, 1


def _evaluator(
    engine: FakeEngine,
    judge: Judge,
    *,
    languages: tuple[str, ...] = ("de", "pl"),
    num_episodes: int = 12,
    config: GateConfig = GateConfig(num_prompts=12, num_replies=12),  # noqa: B008 - frozen
) -> Evaluator:
    """All episodes are held out."""
    episodes = [episode(number, language) for language in languages for number in range(1, num_episodes + 1)]
    return Evaluator(
        journal=MemoryJournal(episodes, held_out_share=1.0),
        sampler=RolloutSampler(engine),
        panel=panel_of(judge),
        admission=FakeAdmission(),
        second_opinion=CONTRACT,
        temperature=0.7,
        config=config,
    )


async def _compare(evaluator: Evaluator) -> Evaluation:
    return await evaluator.compare(CANDIDATE, BASELINE, languages=("de", "pl"), max_tokens=64, seed=5)


def _engine(candidate_texts: dict[int, str] | None = None) -> FakeEngine:
    """Prompts of either language are numbered from 1, so texts tell versions apart, not languages.

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


def _asked(engine: FakeEngine) -> dict[int | None, list[object]]:
    """Prompts and sampling of each version's requests."""
    return {
        version: [(r.prompt_token_ids, r.sampling) for r in engine.requests if r.policy_version == version]
        for version in (CANDIDATE, BASELINE)
    }


async def test_replies_are_judged_in_pieces_that_are_admitted() -> None:
    """Ten held-out replies of each policy are judged eight and two at a time, each time after asking."""
    sizes: list[int] = []

    def reward(sample: Sample) -> float:
        sizes.append(admission.num_asked)
        return 0.5

    admission = FakeAdmission()
    config = GateConfig(num_prompts=10, num_replies=10)
    engine = FakeEngine(lambda request: TEXTS["de"])
    evaluator = _evaluator(engine, reward, languages=("de",), num_episodes=10, config=config)
    await _compare(replace(evaluator, admission=admission))
    assert Counter(sizes) == {1: 8, 2: 2, 3: 8, 4: 2}


async def test_a_better_candidate_passes() -> None:
    """Mean rewards of both, by language; both replies are wholly German, so German prompts have a share of 1."""
    evaluation = await _compare(_evaluator(_engine(), _rewards(0.8, 0.6)))
    assert evaluation.rejected == {}
    assert (evaluation.version, evaluation.baseline_version) == (CANDIDATE, BASELINE)
    assert [evaluation.reward, evaluation.baseline_reward] == pytest.approx([0.8, 0.6])
    assert {code: pytest.approx(pair) for code, pair in evaluation.by_language.items()} == {
        "de": (0.8, 0.6),
        "pl": (0.8, 0.6),
    }
    assert evaluation.fidelity["de"] == (1.0, 1.0)


async def test_both_versions_get_the_same_prompts_and_seeds() -> None:
    """What differs between them is the policy alone."""
    engine = _engine()
    await _compare(_evaluator(engine, _rewards(0.5, 0.5)))
    asked = _asked(engine)
    assert asked[CANDIDATE] == asked[BASELINE]
    assert len(asked[CANDIDATE]) == 24
    assert {request.sampling.temperature for request in engine.requests} == {0.7}


async def test_few_prompts_are_answered_several_times() -> None:
    """Twelve replies of a language from five prompts are three each, every one with a seed of its own."""
    engine = _engine()
    evaluator = _evaluator(engine, _rewards(0.5, 0.5), languages=("de",), num_episodes=5)
    exam = await evaluator.exam(("de",), max_tokens=64, seed=5)
    judged = await evaluator.judge(exam, BASELINE)
    assert Counter(reply.number for reply in judged.replies) == {0: 5, 1: 5, 2: 5}
    assert sorted(request.sampling.seed or 0 for request in engine.requests) == list(range(5, 20))


async def test_at_temperature_zero_a_prompt_is_answered_once() -> None:
    """More replies would be the same one again."""
    engine = _engine()
    evaluator = _evaluator(engine, _rewards(0.5, 0.5), languages=("de",), num_episodes=2)
    await _compare(replace(evaluator, temperature=0.0))
    assert len(engine.requests) == 4


async def test_every_language_has_as_many_prompts() -> None:
    """Three of each, although German has more; a language without any is part of the exam all the same."""
    evaluator = _evaluator(_engine(), _rewards(0.5, 0.5), config=GateConfig(num_prompts=3, num_replies=3))
    exam = await evaluator.exam(("pl", "fr", "de"), max_tokens=64, seed=5)
    assert exam.num_prompts == {"de": 3, "fr": 0, "pl": 3}
    evaluation = evaluator.verdict(
        exam, await evaluator.judge(exam, CANDIDATE), await evaluator.judge(exam, BASELINE), targets=("de",)
    )
    assert evaluation.report is not None
    assert evaluation.report.undetermined["fr"] == "no held-out prompt, at least 8 are needed"


async def test_a_prompt_counts_once() -> None:
    """Two requests with the same prompt are one question."""
    evaluator = _evaluator(_engine(), _rewards(0.5, 0.5), languages=("de",), num_episodes=2)
    await evaluator.journal.append(replace(episode(1), id="again"))
    exam = await evaluator.exam(("de",), max_tokens=64, seed=5)
    assert len(exam.prompts) == len(set(exam.prompts)) == 2


async def test_a_baseline_may_be_judged_long_before() -> None:
    """The exam stays the same while the journal grows; the verdict is that of a comparison at one time."""
    engine = _engine()
    evaluator = _evaluator(engine, _rewards(0.8, 0.6))
    exam = await evaluator.exam(("de", "pl"), max_tokens=64, seed=5)
    baseline = await evaluator.judge(exam, BASELINE)
    await evaluator.journal.append(episode(30))
    evaluation = evaluator.verdict(exam, await evaluator.judge(exam, CANDIDATE), baseline, targets=("de", "pl"))
    assert evaluation == await _compare(_evaluator(_engine(), _rewards(0.8, 0.6)))
    assert _asked(engine)[CANDIDATE] == _asked(engine)[BASELINE]


async def test_a_frozen_exam_is_found_again() -> None:
    """Three prompts of twelve were asked; they are asked again after the journal has grown, with the same digest."""
    config = GateConfig(num_prompts=3, num_replies=3)
    evaluator = _evaluator(_engine(), _rewards(0.5, 0.5), languages=("de",), config=config)
    exam = await evaluator.exam(("de",), max_tokens=64, seed=5)
    later = MemoryJournal([episode(40), *(episode(number) for number in range(1, 13))], held_out_share=1.0)
    again = await replace(evaluator, journal=later).exam(("de",), max_tokens=64, seed=5, frozen=exam.prompts)
    fresh = await replace(evaluator, journal=later).exam(("de",), max_tokens=64, seed=5)
    assert (again.prompts, again.digest) == (exam.prompts, exam.digest)
    assert fresh.digest != exam.digest


async def test_texts_are_kept_only_when_asked_for() -> None:
    """Each prompt's first reply of both policies, beside the prompt's digest."""
    silent = await _compare(_evaluator(_engine(), _rewards(0.5, 0.5)))
    config = GateConfig(num_prompts=12, num_replies=24, keep_texts=True)
    kept = await _compare(_evaluator(_engine(), _rewards(0.5, 0.5), languages=("de",), config=config))
    assert silent.report is not None
    assert silent.report.texts == ()
    assert kept.report is not None
    assert len(kept.report.texts) == 12
    assert (kept.report.texts[0].candidate, kept.report.texts[0].baseline) == (
        f"{TEXTS['de']} v2.",
        f"{TEXTS['de']} v1.",
    )


async def test_a_language_that_is_left_fails_whatever_the_reward() -> None:
    """Every German prompt is answered in English: the share falls from 1 to 0 although the reward rose."""
    engine = _engine(dict.fromkeys(range(1, 13), TEXTS["en"]))
    evaluation = await _compare(_evaluator(engine, _rewards(0.9, 0.6), languages=("de",)))
    assert evaluation.fidelity == {"de": (0.0, 1.0)}
    assert "language fidelity fell from 1.000 to 0.000" in evaluation.rejected["de"]


async def test_a_candidate_that_cannot_be_graded_in_a_language_fails_there() -> None:
    """No number stands for what could not be judged, and escaping the judge is no way to pass."""

    def judge(sample: Sample) -> float | Ungradable:
        unfit = sample.brief.language == "pl" and f"v{CANDIDATE}" in sample.text
        return Ungradable("a parse failure", "fake@1") if unfit else 0.5

    evaluation = await _compare(_evaluator(_engine(), judge))
    assert list(evaluation.rejected) == ["pl"]
    assert "ungradable share rose from 0.000 to 1.000" in evaluation.rejected["pl"]


async def test_without_held_out_prompts_nothing_passes() -> None:
    """The message says what an operator can do."""
    with pytest.raises(GateRejected, match="held-out prompts in de, pl, the journal has none: send more requests"):
        await _compare(_evaluator(_engine(), _rewards(1, 0), languages=("fr",)))


async def test_without_any_grade_nothing_passes() -> None:
    """A judge that is down rejects; it does not wave through."""
    evaluator = _evaluator(_engine(), lambda sample: Ungradable("down", "fake@1"))
    with pytest.raises(GateRejected, match="none of 24 held-out replies of version 2 could be graded"):
        await _compare(evaluator)


class _NarrowEngine(FakeEngine):
    """Has no room for prompt 2."""

    async def generate(self, request: GenerateRequest) -> Completion:
        if request.prompt_token_ids[0] == 2:
            raise PromptTooLong("no room")
        return await super().generate(request)


async def test_a_prompt_without_room_for_a_reply_is_left_out() -> None:
    """Of both versions, so they are still compared on the same prompts: 11 of each language."""
    engine = _NarrowEngine(lambda request: f"{TEXTS['de']} v{request.policy_version}.")
    evaluation = await _compare(_evaluator(engine, _rewards(0.8, 0.6)))
    assert evaluation.report is not None
    assert evaluation.report.verdict is GateVerdict.PASSED
    rewards = [item for item in evaluation.report.comparisons if item.metric == "reward"]
    assert [item.num_prompts for item in rewards] == [11, 11]
    assert len(engine.requests) == 44
