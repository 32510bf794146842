"""The gate's decision about a candidate, from what it and the baseline got in the same exam.

For every language and judged metric (trainer.measures) one of three verdicts:

    passed        the interval of the difference, over prompts, ends above minus the margin: not worse by more than that
    failed        the mean fell by more than the margin, and between policies that do equally well no language and
                  metric would look as bad in more than ``false_block`` of the exams
    undetermined  neither, which says how many prompts would do

A language passes by its reward and its language fidelity. The other metrics are guards: one that failed fails the
language, one that is undetermined does not hold it back, for shares of replies vary too much to be settled by the
prompts that settle a mean.

A candidate fails when a single comparison does. The chance of a false alarm is held over all comparisons together
(trainer.paired.chances), however many languages there are; what it costs is power, which more replies bring back.
Passing needs no such correction: a candidate that is worse in one language has to be lucky in that one. What becomes of
an undetermined candidate, and whether the reward has to rise, is configured (`tuning.gate`).
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from trainer.config import GateConfig
from trainer.gate_records import Drift, GateReport, GateVerdict, Improvement, MetricComparison, ReplyPair
from trainer.graded import Judged, Sheet
from trainer.measures import JUDGED, METRICS, Metric
from trainer.paired import Interval, Values, bootstrap, chances, lower_bound, prompts_needed
from trainer.records import Evaluation

_NEEDED = ("reward", "fidelity")
"""What a language passes by; without these it has no verdict."""


def decide(
    candidate: Judged,
    baseline: Judged,
    config: GateConfig,
    *,
    num_prompts: Mapping[str, int],
    exam: str,
    targets: Sequence[str],
    drift: Mapping[str, Drift] | None = None,
    notes: Sequence[str] = (),
) -> Evaluation:
    """The decision, with its report.

    Args:
        num_prompts: the exam's prompts by language, 0 for those without.
        exam: digest of the exam's prompts; also seeds the resampling, so that the same exam decides alike again.
        targets: languages in which the candidate should have become better.
    """
    seed = int.from_bytes(hashlib.sha256(exam.encode()).digest()[:4])
    sheets = {language: Sheet.of(language, candidate, baseline) for language in sorted(num_prompts)}
    worst = chances([sheet.draws(config.min_determined) for sheet in sheets.values()], seed=seed)
    comparisons = tuple(
        comparison
        for sheet, row in zip(sheets.values(), worst, strict=True)
        for comparison in _comparisons(sheet, row, config, seed)
    )
    failed = _failed(comparisons, drift or {}, config)
    undetermined = _undetermined(comparisons, num_prompts, config, failed)
    improvement = _improvement([sheets[code] for code in sorted(set(targets)) if code in sheets], config, seed)
    report = GateReport(
        verdict=_overall(failed, undetermined),
        exam=exam,
        num_prompts=dict(num_prompts),
        comparisons=comparisons,
        failed=failed,
        undetermined=undetermined,
        improvement=improvement,
        drift=drift,
        notes=tuple(notes),
        texts=_texts(candidate, baseline),
    )
    return _evaluation(candidate, baseline, report, _rejected(report, config))


def _comparisons(sheet: Sheet, worst: Values, config: GateConfig, seed: int) -> list[MetricComparison]:
    """Every metric that both policies have."""
    chance_of = dict(zip((metric.name for metric in JUDGED), worst.tolist(), strict=True)) if sheet.prompts else {}
    found = []
    for metric in METRICS:
        values = sheet.by_prompt(metric)
        if len(values):
            found.append(_comparison(sheet, metric, values, chance_of.get(metric.name), config, seed))
    return found


def _comparison(
    sheet: Sheet, metric: Metric, values: Values, chance: float | None, config: GateConfig, seed: int
) -> MetricComparison:
    differences: Values = values[:, 0] - values[:, 1]
    interval = bootstrap(differences, confidence=config.confidence, seed=seed)
    margin = config.margin_of(metric.name) if metric.judged else None
    verdict = needed = None
    if margin is not None and chance is not None:
        verdict = _verdict(metric, interval, margin, chance, len(values), config)
        if verdict is GateVerdict.UNDETERMINED:
            needed = prompts_needed(
                differences, margin=margin, confidence=config.confidence, least=config.min_determined
            )
    candidate, baseline = values.mean(axis=0).tolist()
    return MetricComparison(
        language=sheet.language,
        metric=metric.name,
        candidate=candidate,
        baseline=baseline,
        difference=interval.mean,
        low=interval.low,
        high=interval.high,
        num_prompts=len(values),
        num_replies=sheet.num_pairs(metric),
        margin=margin,
        verdict=verdict,
        chance=chance if metric.judged else None,
        prompts_needed=needed,
    )


def _verdict(
    metric: Metric, interval: Interval, margin: float, chance: float, num_prompts: int, config: GateConfig
) -> GateVerdict:
    worst = metric.turned(interval.high if metric.lower_is_better else interval.low)
    if metric.turned(interval.mean) < -margin and chance <= config.false_block:
        return GateVerdict.FAILED
    if worst >= -margin and num_prompts >= config.min_determined:
        return GateVerdict.PASSED
    return GateVerdict.UNDETERMINED


def _failed(comparisons: Sequence[MetricComparison], drift: Mapping[str, Drift], config: GateConfig) -> dict[str, str]:
    """By language; several metrics that failed stand in one text."""
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    for comparison in comparisons:
        if comparison.verdict is GateVerdict.FAILED:
            reasons[comparison.language].append(f"{_change(comparison)}, more than {comparison.margin:g}")
    for language, moved in drift.items():
        if config.max_kl is not None and not moved.kl <= config.max_kl:
            reasons[language].append(
                f"moved {moved.kl:.3f} nats per token from the baseline, more than {config.max_kl:g}"
            )
    return {language: "; ".join(texts) for language, texts in sorted(reasons.items())}


def _undetermined(
    comparisons: Sequence[MetricComparison],
    num_prompts: Mapping[str, int],
    config: GateConfig,
    failed: Mapping[str, str],
) -> dict[str, str]:
    """By language, without those that failed."""
    found: dict[str, str] = {}
    for language in sorted(num_prompts.keys() - failed.keys()):
        own = [comparison for comparison in comparisons if comparison.language == language]
        open_ones = [item for item in own if item.metric in _NEEDED and item.verdict is GateVerdict.UNDETERMINED]
        reasons = [_shortage(item) for item in open_ones]
        absent = [name for name in _NEEDED if name not in {comparison.metric for comparison in own}]
        if not num_prompts[language]:
            reasons = [f"no held-out prompt, at least {config.min_determined} are needed"]
        elif absent:
            reasons.insert(0, f"no reply of both policies could be judged by {' and '.join(absent)}")
        if reasons:
            found[language] = "; ".join(reasons)
    return found


def _change(comparison: MetricComparison) -> str:
    words = next(metric.words for metric in METRICS if metric.name == comparison.metric)
    verb = "fell" if comparison.difference < 0 else "rose"
    return (
        f"{words} {verb} from {comparison.baseline:.3f} to {comparison.candidate:.3f} "
        f"({comparison.difference:+.3f}, interval {comparison.low:+.3f} to {comparison.high:+.3f})"
    )


def _shortage(comparison: MetricComparison) -> str:
    return (
        f"{_change(comparison)} over {comparison.num_prompts} prompts, with a margin of {comparison.margin:g}; "
        f"about {comparison.prompts_needed} prompts are needed"
    )


def _improvement(sheets: Sequence[Sheet], config: GateConfig, seed: int) -> Improvement | None:
    """None when no reply in these languages could be graded."""
    reward = METRICS[0]
    values = {sheet.language: sheet.by_prompt(reward) for sheet in sheets}
    differences = {language: rows[:, 0] - rows[:, 1] for language, rows in values.items() if len(rows)}
    if not differences:
        return None
    low = lower_bound(list(differences.values()), level=config.improvement_level, seed=seed)
    return Improvement(
        languages=tuple(differences),
        difference=float(np.mean([row.mean() for row in differences.values()])),
        low=low,
        level=config.improvement_level,
        shown=low > 0,
    )


def _overall(failed: Mapping[str, str], undetermined: Mapping[str, str]) -> GateVerdict:
    if failed:
        return GateVerdict.FAILED
    return GateVerdict.UNDETERMINED if undetermined else GateVerdict.PASSED


def _rejected(report: GateReport, config: GateConfig) -> dict[str, str]:
    """Why the candidate is not published, by language; empty when it is."""
    rejected = dict(report.failed)
    if config.undetermined == "reject":
        rejected |= {language: f"undetermined: {why}" for language, why in report.undetermined.items()}
    gain = report.improvement
    if config.require_improvement and not rejected and (gain is None or not gain.shown):
        languages = ", ".join(gain.languages) if gain is not None else "all languages"
        bound = f"the lower bound is {gain.low:+.3f}" if gain is not None else "no reply could be graded"
        rejected[languages] = f"no rise of the reward is shown, {bound}"
    return rejected


def _texts(candidate: Judged, baseline: Judged) -> tuple[ReplyPair, ...]:
    theirs = {reply.prompt: reply.text for reply in baseline.replies if reply.text is not None}
    return tuple(
        ReplyPair(reply.language, reply.prompt, reply.text, text)
        for reply in candidate.replies
        if reply.text is not None and (text := theirs.get(reply.prompt)) is not None
    )


def _evaluation(candidate: Judged, baseline: Judged, report: GateReport, rejected: Mapping[str, str]) -> Evaluation:
    pairs = {
        name: {item.language: (item.candidate, item.baseline) for item in report.comparisons if item.metric == name}
        for name in _NEEDED
    }
    return Evaluation(
        version=candidate.version,
        baseline_version=baseline.version,
        reward=_mean_reward(candidate),
        baseline_reward=_mean_reward(baseline),
        by_language=pairs["reward"],
        fidelity=pairs["fidelity"],
        rejected=rejected,
        report=report,
    )


def _mean_reward(judged: Judged) -> float:
    values = [reply.measures["reward"] for reply in judged.replies if "reward" in reply.measures]
    return sum(values) / len(values)
