"""A report of the gate, for tests of what shows it."""

from trainer.gate_records import Drift, GateReport, GateVerdict, Improvement, MetricComparison


def gate_report(*differences: tuple[str, str, float]) -> GateReport:
    """Undetermined in French; differences are (language, metric, candidate less baseline)."""
    comparisons = tuple(
        MetricComparison(
            language=language,
            metric=metric,
            candidate=0.5 + difference,
            baseline=0.5,
            difference=difference,
            low=difference - 0.125,
            high=difference + 0.125,
            num_prompts=16,
            num_replies=48,
            margin=0.05,
            verdict=GateVerdict.PASSED,
            chance=1.0,
        )
        for language, metric, difference in differences
    )
    return GateReport(
        verdict=GateVerdict.UNDETERMINED,
        exam="0123456789abcdef",
        num_prompts={"de": 16, "fr": 0},
        comparisons=comparisons,
        failed={},
        undetermined={"fr": "no held-out prompt, at least 8 are needed"},
        improvement=Improvement(("de",), 0.25, 0.125, 0.05, shown=True),
        drift={"de": Drift(-1.5, -1.25, 0.0625, 40)},
        notes=("a note",),
    )
