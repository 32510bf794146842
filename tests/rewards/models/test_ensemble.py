"""Parts that models judge: the way from raw scores to a part of the reward, and what is no score."""

import math
from collections.abc import Callable

import pytest

from agent.brief import Brief, Kind
from agent.completion import FinishReason
from agent.errors import EngineDead
from rewards.models.calibration import Calibration
from rewards.models.encoding import RewardEncoder
from rewards.models.ensemble import ModelEnsemble
from rewards.models.fakes import FakeRawScorer
from rewards.models.judge import Broken, Judge, Standing, Standings
from rewards.score import Sample, Score, SharedRewardModel, Ungradable
from service.bench.tokenizer import train_tokenizer

_ENCODER = RewardEncoder(train_tokenizer())


def _sample(text: str, *, language: str = "de", reference: str | None = None) -> Sample:
    brief = Brief("acme", Kind.CREATE, language, instructions="Schreibe über Kaffee.")
    return Sample(brief, text, FinishReason.STOP, num_tokens=3, reference=reference)


def _scorer(raws: dict[str, float]) -> FakeRawScorer:
    """Scores a row by the first of the words that its text has; 0 without any."""

    def judge(backbone: str, adapter: str | None, row: tuple[int, ...]) -> float:
        text = str(_ENCODER.tokenizer.decode(list(row)))
        return next((raw for word, raw in raws.items() if word in text), 0.0)

    return FakeRawScorer(judge)


def _judge(scorer: FakeRawScorer, name: str = "base", *, max_tokens: int = 200) -> Judge:
    judge = Judge(name, _ENCODER, scorer, max_tokens=max_tokens)
    judge.standings = Standings({"de": Standing(f"{name}:v1", "de_v1")})
    return judge


def _value(answer: Score | Ungradable | None) -> float:
    assert isinstance(answer, Score)
    return answer.value


def test_it_is_a_shared_reward_model() -> None:
    """The panel takes it as one."""

    def check(model: ModelEnsemble) -> SharedRewardModel:
        return model

    assert check(ModelEnsemble("taste", [_judge(_scorer({}))], penalty=0.0)).name == "taste"


def test_values_are_centred_on_the_reply_that_was_served() -> None:
    """Raw 3 and 1 at a scale of 2: z = 1.5 and 0.5, tanh(0.5) = 0.4621. The served reply itself is worth 0."""
    scorer = _scorer({"gut": 3.0, "Kaffee.": 1.0})
    judge = _judge(scorer)
    judge.standings = Standings({"de": Standing("base:v1", "de_v1", Calibration(0.0, 2.0))})
    model = ModelEnsemble("taste", [judge], penalty=0.0)
    better, same = model.score([_sample("gut", reference="nur"), _sample("nur", reference="nur")])
    assert _value(better) == pytest.approx(math.tanh((1.5 - 0.5) / 2))
    assert _value(same) == 0.0
    assert scorer.asked == [("base", "de_v1", 2, None)]


def test_without_a_reference_the_mean_of_the_language_is_worth_nothing() -> None:
    """Raw 5 at mean 3 and deviation 2: z = 1, tanh(0.5) = 0.4621; raw 3 is the mean."""
    judge = _judge(_scorer({"gut": 5.0, "mittel": 3.0}))
    judge.standings = Standings({"de": Standing("base:v1", "de_v1", Calibration(3.0, 2.0))})
    model = ModelEnsemble("taste", [judge], penalty=0.0)
    good, middling = model.score([_sample("gut"), _sample("mittel")])
    assert _value(good) == pytest.approx(math.tanh(0.5))
    assert _value(middling) == 0.0


def test_a_language_without_a_model_is_not_judged() -> None:
    """Polish has no adapter and the backbone no head: the part is absent, and nobody is asked."""
    scorer = _scorer({})
    model = ModelEnsemble("taste", [_judge(scorer)], penalty=0.0)
    assert model.score([_sample("x", language="pl")]) == [None]
    assert scorer.asked == []


def test_a_part_judges_its_own_languages_only() -> None:
    """What the configuration leaves to others is absent even where a model stands ready."""
    judge = _judge(_scorer({"gut": 1.0}))
    judge.standings = Standings(otherwise=Standing("base"))
    model = ModelEnsemble("taste", [judge], penalty=0.0, languages=("de",))
    german, polish = model.score([_sample("gut"), _sample("gut", language="pl")])
    assert isinstance(german, Score)
    assert polish is None


def test_each_language_is_asked_of_its_own_adapter() -> None:
    """Answers come back in the order of the samples, whichever languages lie between."""
    scorer = FakeRawScorer(lambda backbone, adapter, row: {"de_v1": 1.0, "pl_v2": -1.0, None: 0.5}[adapter])
    judge = _judge(scorer)
    judge.standings = Standings(
        {"de": Standing("base:v1", "de_v1"), "pl": Standing("base:v2", "pl_v2")}, otherwise=Standing("base")
    )
    model = ModelEnsemble("taste", [judge], penalty=0.0)
    answers = model.score([_sample("a", language=code) for code in ("de", "pl", "fr", "de")])
    assert [_value(answer) for answer in answers] == pytest.approx([math.tanh(x / 2) for x in (1, -1, 0.5, 1)])
    assert [answer.judge for answer in answers if isinstance(answer, Score)] == [
        "taste@base:v1",
        "taste@base:v2",
        "taste@base",
        "taste@base:v1",
    ]


@pytest.mark.parametrize("raw", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_ungradable(raw: float) -> None:
    """It is neither 0 nor a bound; its neighbour keeps its score."""
    model = ModelEnsemble("taste", [_judge(_scorer({"gut": 1.0, "schlecht": raw}))], penalty=0.0)
    good, bad = model.score([_sample("gut"), _sample("schlecht")])
    assert _value(good) == pytest.approx(math.tanh(0.5))
    assert isinstance(bad, Ungradable)
    assert bad.reason == f"the score must be finite, got {raw}"


def test_what_is_too_long_is_ungradable_and_never_cut() -> None:
    """The model is not asked about it; the bound is inclusive."""
    sample = _sample("Kaffee am Morgen")
    num_tokens = len(_ENCODER.encode(sample.brief, sample.text))
    scorer = _scorer({})
    (answer,) = ModelEnsemble("taste", [_judge(scorer, max_tokens=num_tokens - 1)], penalty=0.0).score([sample])
    assert answer == Ungradable(f"brief and reply must fit {num_tokens - 1} tokens, got {num_tokens}", "base")
    assert scorer.asked == []
    (answer,) = ModelEnsemble("taste", [_judge(scorer, max_tokens=num_tokens)], penalty=0.0).score([sample])
    assert isinstance(answer, Score)


def test_a_reference_that_cannot_be_graded_leaves_the_mean() -> None:
    """The reply is not to blame for what was served before: z = 1 against 0."""
    model = ModelEnsemble("taste", [_judge(_scorer({"gut": 1.0, "kaputt": math.nan}))], penalty=0.0)
    (answer,) = model.score([_sample("gut", reference="kaputt")])
    assert _value(answer) == pytest.approx(math.tanh(0.5))


def test_a_conversation_that_cannot_be_encoded_is_ungradable() -> None:
    """A chat template that raises is a reason, not an exception."""
    encoder = RewardEncoder(train_tokenizer())
    encoder.tokenizer.chat_template = "{{ raise_exception('no assistants') }}"
    judge = Judge("base", encoder, _scorer({}), max_tokens=100)
    judge.standings = Standings(otherwise=Standing("base"))
    (answer,) = ModelEnsemble("taste", [judge], penalty=0.0).score([_sample("gut")])
    assert isinstance(answer, Ungradable)
    assert "no assistants" in answer.reason


def test_judges_that_disagree_cost_their_deviation() -> None:
    """tanh(1) = 0.7616 and tanh(0) = 0: mean 0.3808, deviation 0.3808; less half of it is 0.1904."""
    judges = [_judge(_scorer({"gut": 2.0}), "a"), _judge(_scorer({}), "b")]
    (answer,) = ModelEnsemble("taste", judges, penalty=0.5).score([_sample("gut")])
    assert _value(answer) == pytest.approx(math.tanh(1) / 4)
    assert isinstance(answer, Score)
    assert answer.judge == "taste@a:v1+b:v1"


def test_a_judge_that_does_not_know_the_language_does_not_vote() -> None:
    """Its silence is neither a vote nor a disagreement."""
    silent = _judge(_scorer({"gut": -9.0}), "b")
    silent.standings = Standings()
    (answer,) = ModelEnsemble("taste", [_judge(_scorer({"gut": 2.0}), "a"), silent], penalty=0.5).score(
        [_sample("gut")]
    )
    assert _value(answer) == pytest.approx(math.tanh(1))


def test_one_judge_that_cannot_grade_is_enough() -> None:
    """The mean of the others would be another reward than its neighbours got."""
    judges = [_judge(_scorer({}), "a"), _judge(_scorer({"gut": math.nan}), "b")]
    (answer,) = ModelEnsemble("taste", judges, penalty=0.5).score([_sample("gut")])
    assert isinstance(answer, Ungradable)
    assert answer.judge == "b"


def test_a_model_that_could_not_be_loaded_is_ungradable_with_its_reason() -> None:
    """Its absence would change the reward of a language without anybody noticing."""
    judge = _judge(_scorer({}))
    judge.standings = Standings({"de": Broken("v3 has another sha256")})
    (answer,) = ModelEnsemble("taste", [judge], penalty=0.0).score([_sample("gut")])
    assert answer == Ungradable("v3 has another sha256", "base")


@pytest.mark.parametrize("failure", [TimeoutError(), EngineDead("the engine process died")])
def test_a_live_request_does_not_wait_for_a_judge_that_is_late_or_gone(failure: Exception) -> None:
    """The part is absent for every reply alike, so that all are ranked by the same parts; tuning hears of it."""
    scorer = _scorer({})
    scorer.failure = failure
    model = ModelEnsemble("taste", [_judge(scorer)], penalty=0.0, ranking_timeout_s=0.25)
    assert model.score_live([_sample("gut"), _sample("schlecht")]) == [None, None]
    (asked,) = scorer.asked
    assert asked[3] == pytest.approx(0.25, abs=0.05)
    with pytest.raises(type(failure)):
        model.score([_sample("gut")])


def test_equal_replies_are_scored_once() -> None:
    """Siblings with one text, and a reference that all share, make two rows."""
    scorer = _scorer({})
    ask: Callable[..., object] = ModelEnsemble("taste", [_judge(scorer)], penalty=0.0).score
    ask([_sample("gut", reference="alt")] * 4)
    assert [num_rows for _, _, num_rows, _ in scorer.asked] == [2]
