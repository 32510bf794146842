"""The gate's decision: what passes, what fails, what stays open, and in which words."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from trainer.config import GateConfig, GateMargins
from trainer.gate import decide
from trainer.gate_records import Drift, GateVerdict, MetricComparison
from trainer.graded import GradedReply, Judged
from trainer.records import Evaluation

CANDIDATE, BASELINE = 2, 1
FINE = {"reward": 0.6, "fidelity": 1.0}


def _judged(version: int, values: Mapping[str, Sequence[Mapping[str, float]]], samples: int = 1) -> Judged:
    """Replies by language; ``samples`` in a row belong to one prompt."""
    return Judged(
        version,
        tuple(
            GradedReply(f"{language}-{number // samples}", language, number % samples, measures)
            for language, rows in values.items()
            for number, measures in enumerate(rows)
        ),
    )


def _decide(
    candidate: Mapping[str, Sequence[Mapping[str, float]]],
    baseline: Mapping[str, Sequence[Mapping[str, float]]],
    *,
    samples: int = 1,
    targets: Sequence[str] = ("de",),
    drift: Mapping[str, Drift] | None = None,
    **config: Any,
) -> Evaluation:
    return decide(
        _judged(CANDIDATE, candidate, samples),
        _judged(BASELINE, baseline, samples),
        GateConfig(**config),
        num_prompts={language: len(rows) // samples for language, rows in baseline.items()},
        exam="e",
        targets=targets,
        drift=drift,
    )


def _rows(value: float, number: int = 12, metric: str = "reward") -> list[dict[str, float]]:
    return [{**FINE, metric: value} for _ in range(number)]


def _of(evaluation: Evaluation, language: str, metric: str) -> MetricComparison:
    assert evaluation.report is not None
    (found,) = [item for item in evaluation.report.comparisons if (item.language, item.metric) == (language, metric)]
    return found


def _verdict(evaluation: Evaluation) -> GateVerdict:
    assert evaluation.report is not None
    return evaluation.report.verdict


@pytest.mark.parametrize(("candidate", "passes"), [(0.56, True), (0.54, False)])
def test_a_candidate_may_be_worse_by_the_margin_only(candidate: float, passes: bool) -> None:
    """The baseline has 0.6 and the margin is 0.05; all replies alike, so there is no doubt either way."""
    evaluation = _decide({"de": _rows(candidate)}, {"de": _rows(0.6)})
    assert _verdict(evaluation) is (GateVerdict.PASSED if passes else GateVerdict.FAILED)
    assert (evaluation.rejected == {}) is passes


def test_one_language_is_enough_to_fail() -> None:
    """Polish fell from 0.6 to 0.4; that German is better than before does not make up for it."""
    evaluation = _decide({"de": _rows(0.9), "pl": _rows(0.4)}, {"de": _rows(0.6), "pl": _rows(0.6)})
    assert evaluation.rejected == {
        "pl": "reward fell from 0.600 to 0.400 (-0.200, interval -0.200 to -0.200), more than 0.05"
    }


def test_a_rate_that_should_be_low_fails_by_rising() -> None:
    """Refusals of all replies instead of none."""
    evaluation = _decide({"de": _rows(1.0, metric="refusal")}, {"de": _rows(0.0, metric="refusal")})
    assert evaluation.rejected["de"].startswith("refusal rate rose from 0.000 to 1.000 (+1.000, ")
    assert _verdict(_decide({"de": _rows(0.0, metric="refusal")}, {"de": _rows(1.0, metric="refusal")})) is (
        GateVerdict.PASSED
    )


def test_each_metric_may_have_its_own_margin() -> None:
    """Repetition fell by 0.1, of which 0.2 is allowed there and 0.05 elsewhere."""
    worse, before = {"de": _rows(0.8, metric="repetition")}, {"de": _rows(0.9, metric="repetition")}
    assert _decide(worse, before).rejected
    assert not _decide(worse, before, margins=GateMargins(repetition=0.2)).rejected


def test_what_is_only_reported_fails_nothing() -> None:
    """Ten times the tokens: shown with its difference, without margin, chance or verdict."""
    evaluation = _decide({"de": _rows(500.0, metric="tokens")}, {"de": _rows(50.0, metric="tokens")})
    tokens = _of(evaluation, "de", "tokens")
    assert (tokens.candidate, tokens.baseline, tokens.difference) == (500.0, 50.0, 450.0)
    assert (tokens.margin, tokens.chance, tokens.verdict) == (None, None, None)
    assert not evaluation.rejected


def test_too_few_prompts_pass_nothing() -> None:
    """Seven prompts without any difference are one below the eight that are asked for; the report says how many."""
    evaluation = _decide({"de": _rows(0.6, 7)}, {"de": _rows(0.6, 7)})
    assert _verdict(evaluation) is GateVerdict.UNDETERMINED
    assert _of(evaluation, "de", "reward").prompts_needed == 8
    assert evaluation.rejected == {}


def test_prompts_that_rose_and_fell_fail_nothing() -> None:
    """Six replies to each of eight prompts, three of which rose by 0.2 and five fell by 0.4: the mean fell by 0.175.
    Of the 2^8 = 256 ways to turn prompts round those look as bad in which at most 0.6 of the whole 2.6 is turned: any
    of the three small ones, 8 ways, or a large one with at most one small one, 5 * 4 ways. So the chance is 28 / 256.
    While each of the 48 replies was turned by itself it was 0.001, and the candidate was blocked."""
    rows = [{**FINE, "reward": 0.6 + (0.2 if prompt < 3 else -0.4)} for prompt in range(8) for _ in range(6)]
    evaluation = _decide({"de": rows}, {"de": _rows(0.6, 48)}, samples=6)
    reward = _of(evaluation, "de", "reward")
    assert reward.difference == pytest.approx(-0.175)
    assert reward.chance == pytest.approx(28 / 256, abs=0.02)
    assert evaluation.rejected == {}


def test_few_replies_that_fell_may_be_chance() -> None:
    """Three replies of three are worse: between equal policies one exam of 2^3 = 8 looks like that, so it is open."""
    evaluation = _decide({"de": _rows(0.1, 3)}, {"de": _rows(0.6, 3)})
    assert _verdict(evaluation) is GateVerdict.UNDETERMINED
    assert _of(evaluation, "de", "reward").chance == pytest.approx(1 / 8, abs=0.02)


def test_more_replies_to_few_prompts_show_a_fall() -> None:
    """The same three prompts, answered four times each: one of 2^12 = 4096."""
    evaluation = _decide({"de": _rows(0.1)}, {"de": _rows(0.6)}, samples=4)
    assert _verdict(evaluation) is GateVerdict.FAILED
    assert (_of(evaluation, "de", "reward").num_prompts, _of(evaluation, "de", "reward").num_replies) == (3, 12)


def test_noise_is_neither_passed_nor_failed() -> None:
    """Half rose by 0.3, half fell by 0.3: the deviation is 0.3133, so (2.80159 * 0.3133 / 0.05)^2 = 308.3 prompts."""
    noisy = [{**FINE, "reward": 0.6 + 0.3 * (-1) ** number} for number in range(12)]
    evaluation = _decide({"de": noisy}, {"de": _rows(0.6)})
    assert _verdict(evaluation) is GateVerdict.UNDETERMINED
    assert evaluation.report is not None
    assert evaluation.report.undetermined["de"].endswith("about 309 prompts are needed")


@pytest.mark.parametrize(("undetermined", "rejected"), [("publish", []), ("reject", ["de"])])
def test_what_is_undetermined_goes_as_configured(undetermined: str, rejected: list[str]) -> None:
    """Published by default; kept back where only what is shown to be no worse may pass."""
    evaluation = _decide({"de": _rows(0.6, 3)}, {"de": _rows(0.6, 3)}, undetermined=undetermined)
    assert list(evaluation.rejected) == rejected


def test_a_language_without_prompts_is_undetermined() -> None:
    """It is enabled, so it has to be named."""
    evaluation = _decide({"de": _rows(0.6), "sv": []}, {"de": _rows(0.6), "sv": []}, undetermined="reject")
    assert evaluation.rejected == {"sv": "undetermined: no held-out prompt, at least 8 are needed"}


def test_a_language_that_nobody_could_judge_is_undetermined() -> None:
    """Grades without any determined language are half of what it takes."""
    rows = [{"reward": 0.5} for _ in range(12)]
    evaluation = _decide({"de": rows}, {"de": rows})
    assert evaluation.report is not None
    assert evaluation.report.undetermined == {"de": "no reply of both policies could be judged by fidelity"}


def test_replies_are_paired_by_prompt_and_number() -> None:
    """The baseline lacks the second reply to the prompt: one pair is left, and its difference is 0.8 - 0.6."""
    ours = Judged(2, (GradedReply("p", "de", 0, {"reward": 0.8}), GradedReply("p", "de", 1, {"reward": 0.0})))
    theirs = Judged(1, (GradedReply("p", "de", 0, {"reward": 0.6}),))
    evaluation = decide(ours, theirs, GateConfig(), num_prompts={"de": 1}, exam="e", targets=("de",))
    assert _of(evaluation, "de", "reward").difference == pytest.approx(0.2)


def test_a_prompt_counts_once_however_often_it_is_answered() -> None:
    """One prompt with differences 0.1 and 0.3, one with -0.2 from its only complete pair: (0.2 - 0.2) / 2 = 0."""
    ours = {"de": [{"reward": 0.7}, {"reward": 0.9}, {"reward": 0.4}, {}]}
    theirs = {"de": [{"reward": 0.6}, {"reward": 0.6}, {"reward": 0.6}, {"reward": 0.6}]}
    assert _of(_decide(ours, theirs, samples=2), "de", "reward").difference == pytest.approx(0.0)


def test_a_rise_in_the_runs_languages_is_reported() -> None:
    """German, which the run learned, rose by 0.2 everywhere; Polish, which it did not, says nothing about it."""
    ours, theirs = {"de": _rows(0.8), "pl": _rows(0.6)}, {"de": _rows(0.6), "pl": _rows(0.6)}
    report = _decide(ours, theirs).report
    assert report is not None
    assert report.improvement is not None
    assert (report.improvement.languages, report.improvement.shown) == (("de",), True)
    assert report.improvement.low == pytest.approx(0.2)


def test_a_rise_may_be_required() -> None:
    """An equal policy then stays unpublished, with the reason; by default it is published."""
    same = {"de": _rows(0.6)}
    assert not _decide(same, same).rejected
    assert _decide(same, same, require_improvement=True).rejected == {
        "de": "no rise of the reward is shown, the lower bound is +0.000"
    }
    assert not _decide({"de": _rows(0.7)}, same, require_improvement=True).rejected


def test_drift_fails_only_beyond_a_limit() -> None:
    """0.7 nats per token: reported without a limit, refused beyond 0.5."""
    moved = {"pl": Drift(logprob=-2.0, baseline_logprob=-1.0, kl=0.7, num_tokens=40)}
    same = {"pl": _rows(0.6)}
    assert not _decide(same, same, drift=moved).rejected
    assert _decide(same, same, drift=moved, max_kl=0.5).rejected == {
        "pl": "moved 0.700 nats per token from the baseline, more than 0.5"
    }


def test_the_same_exam_is_decided_alike_again() -> None:
    """Resampling is seeded by the exam."""
    noisy = [{**FINE, "reward": 0.6 + 0.01 * number} for number in range(12)]
    assert _decide({"de": noisy}, {"de": _rows(0.6)}) == _decide({"de": noisy}, {"de": _rows(0.6)})
