"""The report's charts as inline SVG, drawn by matplotlib without a display."""

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from service.demo.results import Exchange, SwapRecord
from service.http.tuning_schema import Comparison, EvaluationView, StepView

BEFORE, AFTER, LINE = "#8a94a6", "#1f6feb", "#c2410c"
_VERSIONS = (BEFORE, AFTER, "#1a7f37", "#9a3fb5")
_SIZE = (8.0, 3.2)


def reward_chart(steps: Sequence[StepView], evaluation: EvaluationView) -> str:
    """Mean reward of every step's replies, and the held-out reward before and after."""
    figure, axes = _canvas("step", "mean reward")
    measured = [(step.step, step.reward_mean) for step in steps if step.reward_mean is not None]
    axes.plot(*_columns(measured), marker="o", color=AFTER, label="replies of the step (training prompts)")
    held_out = [
        (at, value)
        for at, value in ((0, evaluation.baseline_reward), (len(steps), evaluation.reward))
        if value is not None
    ]
    axes.plot(*_columns(held_out), linestyle="--", marker="s", color=LINE, label="held-out prompts, before and after")
    axes.set_xticks(range(len(steps) + 1))
    axes.set_ylim(0, 1)
    _legend(figure)
    return _svg(figure)


def fidelity_chart(fidelity: Mapping[str, Comparison]) -> str:
    """Share of held-out text in the wanted language, per language, before and after."""
    figure, axes = _canvas("language of the brief", "share in the language")
    width = 0.38
    pairs = list(fidelity.values())
    for offset, color, label, values in (
        (-width / 2, BEFORE, "untuned", [pair.baseline for pair in pairs]),
        (width / 2, AFTER, "tuned", [pair.candidate for pair in pairs]),
    ):
        places = [place + offset for place in range(len(pairs))]
        axes.bar(places, [value or 0.0 for value in values], width, color=color, label=label)
    axes.set_xticks(range(len(fidelity)), list(fidelity))
    axes.set_ylim(0, 1.05)
    _legend(figure)
    return _svg(figure)


def latency_chart(swap: SwapRecord) -> str:
    """Every request of the swap by when it was answered, coloured by the policy that answered; a line per change."""
    figure, axes = _canvas("seconds since the demo began", "latency in s")
    for number, (version, exchanges) in enumerate(_by_version(swap.exchanges).items()):
        points = [(exchange.done_s, exchange.latency_s) for exchange in exchanges]
        axes.scatter(*_columns(points), s=22, color=_VERSIONS[number % len(_VERSIONS)], label=f"policy {version}")
    for flip in swap.flips:
        axes.axvline(flip.at_s, color=LINE, linewidth=1)
        axes.annotate(
            f"{flip.version} {flip.cause}",
            (flip.at_s, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(2, 3),
            textcoords="offset points",
            fontsize=8,
            color=LINE,
        )
    axes.set_ylim(bottom=0)
    _legend(figure)
    return _svg(figure)


def _by_version(exchanges: Sequence[Exchange]) -> dict[int, list[Exchange]]:
    versions = sorted({exchange.policy_version for exchange in exchanges})
    return {version: [item for item in exchanges if item.policy_version == version] for version in versions}


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _canvas(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    return figure, axes


def _legend(figure: Figure) -> None:
    """Above the axes, where it hides nothing."""
    figure.legend(frameon=False, loc="outside upper right", ncols=4)


def _svg(figure: Figure) -> str:
    """The figure as an `<svg>` element; text stays text."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "coloq", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    markup = buffer.getvalue()
    return markup[markup.index("<svg") :]
