"""Exams: the reward, the gate's own opinion and what is not rewarded, side by side; episodes that only hold prompts."""

import pytest

from agent.brief import Brief, Kind
from agent.contract import LanguageContract
from agent.episode import Episode
from agent.fakes import CharEncoder, FixedDetector
from agent.prompt import PromptLibrary
from rewards.config import FAULT_WEIGHTS
from rewards.fakes import FakeRewardModel
from rewards.score import Ungradable
from service.bench.learning.exam import GATE_FIDELITY, Examiner, Graded, reply_sample, reward_config
from service.bench.learning.host import Prompts
from service.bench.learning.trl_program import LearnReward, rows
from service.stored_record import RecordCodec

GERMAN = Brief("bench", Kind.CREATE, "de", instructions="Etwas über das Meer.")
SECOND_OPINION = LanguageContract(FixedDetector({"und": "de", "and": "en"}))
IN_GERMAN, IN_ENGLISH = "Wind und Wellen kommen vom Meer her.", "Wind and waves are coming in from the sea."


def examiner(judge: FakeRewardModel) -> Examiner:
    return Examiner(judge, SECOND_OPINION)


def test_a_grade_holds_the_reward_and_the_gates_opinion() -> None:
    """The judge is content with both; the gate's detector finds one of them to be English."""
    samples = [reply_sample(GERMAN, text, 9, truncated=False) for text in (IN_GERMAN, IN_ENGLISH)]
    german, english = examiner(FakeRewardModel(lambda sample: 0.9)).grade([3, 4], samples)
    assert (german.prompt, german.language, german.reward, german.num_tokens) == (3, "de", 0.9, 9)
    assert german.parts[GATE_FIDELITY] == 1.0
    assert english.parts[GATE_FIDELITY] == 0.0
    assert german.parts["substance"] == 1.0


def test_what_cannot_be_graded_has_no_reward_but_its_other_parts() -> None:
    """A reply that was cut off loses a fifth of its substance (0.8), reward or not."""
    judge = FakeRewardModel(lambda sample: Ungradable("too short", "fake"))
    (reply,) = examiner(judge).grade([0], [reply_sample(GERMAN, IN_GERMAN, 9, truncated=True)])
    assert reply.reward is None
    assert reply.truncated
    assert reply.parts["substance"] == pytest.approx(0.8)


def test_the_reward_is_fidelity_repetition_length_and_fluency_less_faults() -> None:
    """Substance is watched, not rewarded; fluency can be left out; faults cost what they do by default."""
    rules = {"fidelity", "length", "repetition", *FAULT_WEIGHTS}
    judged = {
        fluency: {name for name, weight in reward_config(fluency=fluency).weights.items() if weight}
        for fluency in (True, False)
    }
    assert judged == {True: {*rules, "fluency"}, False: rules}
    assert reward_config(fluency=False).extra == {}


def test_a_seeded_episode_is_the_nodes_own_prompt_and_survives_the_store() -> None:
    """Its only completion is empty, so that nothing of it can be trained on."""
    library = PromptLibrary.load()
    episode = Prompts(CharEncoder(), library).episode(GERMAN, "seed-1")
    rendered = library.render(GERMAN)
    assert CharEncoder.split(episode.prompt_token_ids) == (rendered.system, rendered.user)
    assert episode.completions[0].token_ids == ()
    codec = RecordCodec(Episode)
    assert codec.decode(codec.encode(episode)) == episode


def test_trl_gets_the_nodes_prompts_as_messages() -> None:
    """System and user message of the template, numbered from where the set begins."""
    rendered = PromptLibrary.load().render(GERMAN)
    (row,) = rows([GERMAN], first=5)
    assert row == {
        "prompt": [{"role": "system", "content": rendered.system}, {"role": "user", "content": rendered.user}],
        "number": 5,
    }


def test_trls_reward_is_the_panels_and_leaves_the_ungradable_out() -> None:
    """Rewards 0.25 and 0.75 make a point of 0.5 over three samples; the ungradable third is None to TRL."""
    values = {"a": 0.25, "b": 0.75}
    judge = FakeRewardModel(lambda sample: values.get(sample.text) or Ungradable("unknown", "fake"))
    reward = LearnReward(examiner(judge), [GERMAN], max_tokens=2, end=0)
    replies = [[{"role": "assistant", "content": text}] for text in ("a", "b", "c")]
    assert reward(completions=replies, completion_ids=[[1, 0], [1, 2], [1]], number=[0, 0, 0]) == [0.25, 0.75, None]
    assert [sample.finish_reason.value for sample in judge.batches[0]] == ["stop", "length", "stop"]
    point = reward.point(1.5)
    assert (point.at_s, point.num_samples, point.reward) == (1.5, 3, 0.5)
    assert reward.num_ungradable == 1


def test_trls_exam_grades_into_a_list_and_counts_no_samples() -> None:
    """While an exam is on, the curve stands still."""
    reward = LearnReward(examiner(FakeRewardModel(lambda sample: 0.5)), [GERMAN, GERMAN], max_tokens=9, end=0)
    exam: list[Graded] = []
    reward.exam = exam
    replies = [[{"role": "assistant", "content": IN_GERMAN}]]
    assert reward(completions=replies, completion_ids=[[1]], number=[1]) == [0.5]
    assert [graded.prompt for graded in exam] == [1]
    reward.exam = None
    assert reward(completions=replies, completion_ids=[[1]], number=[0]) == [0.5]
    assert reward.point(1.0).num_samples == 1
