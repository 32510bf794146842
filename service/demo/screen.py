"""The demo on the terminal: numbered stages with their times, tables, a bar for the tuning run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.status import Status
from rich.table import Table
from rich.text import Text

from service.demo.results import DemoResults, Exchange, RewardPair, SwapRecord
from service.demo.tenant_client import Clock
from service.http.inspection_schema import RequestView
from service.http.tuning_schema import EvaluationView, RunView, StepView

_VERDICT_STYLES = {"pass": "green", "repaired": "green", "failed": "red", "undetermined": "yellow"}


class Screen:
    """Prints what happens. Knows no HTTP."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console = console
        self.clock = clock
        self._stage = 0

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """One stage: its title, then the time that it took."""
        self._stage += 1
        began_s = self.clock.now_s
        self._console.print(f"[bold]{self._stage}. {title}[/bold]")
        yield
        self._console.print(f"   [dim]{self.clock.now_s - began_s:.1f} s[/dim]")

    @contextmanager
    def busy(self) -> Iterator[Status]:
        """A spinner with a text that changes."""
        with self._console.status("…") as status:
            yield status

    def say(self, line: str) -> None:
        """One indented line, as it is."""
        self._console.print(Text(f"   {line}"))

    def replies(self, exchanges: Sequence[Exchange]) -> None:
        """Replies with their language verdicts."""
        table = Table("", "verdict", "policy", "reply", box=None, padding=(0, 1, 0, 3))
        for exchange in exchanges:
            verdict = Text(exchange.verdict, style=_VERDICT_STYLES[exchange.verdict])
            text = Text(" ".join(exchange.text.split()), overflow="ellipsis", no_wrap=True)
            table.add_row(exchange.brief.language, verdict, str(exchange.policy_version), text)
        self._console.print(table)

    def request(self, request: RequestView) -> None:
        """A reply's reward with its parts and weights, and what was said of it."""
        reward = request.reward
        parts = ", ".join(
            f"{part.name} {figure(part.value)} x {part.weight:g}" for part in reward.parts if part.value is not None
        )
        self.say(f"{request.language}  reward {figure(reward.value)}: {reward.ungradable or parts}")
        for piece in request.feedback:
            said = piece.edit.text if piece.edit is not None else f"{piece.rating} of 5 stars"
            self.say(f"{piece.kind.value}: {said}")

    def reward(self, pair: RewardPair) -> None:
        """What a reply is worth before and after, and the parts that changed."""
        shown = [(name, figure(before), figure(after)) for name, _, before, after in pair.parts]
        changed = [f"{name} {before} → {after}" for name, before, after in shown if before != after]
        total = change(pair.untuned.reward.value, pair.tuned.reward.value)
        self.say(f"{pair.untuned.language}  reward {total}: {', '.join(changed) or 'every part is the same'}")

    @contextmanager
    def run_progress(self, num_steps: int) -> "Iterator[RunProgress]":
        """A bar for a tuning run."""
        progress = Progress(
            TextColumn("  "),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=self._console,
        )
        with progress:
            yield RunProgress(progress, progress.add_task("waits for its first step", total=num_steps))

    def evaluation(self, evaluation: EvaluationView) -> None:
        """Held-out reward and language fidelity, baseline beside candidate."""
        table = Table("held out", "reward", "language fidelity", box=None, padding=(0, 1, 0, 3))
        for language, reward in evaluation.by_language.items():
            fidelity = evaluation.fidelity.get(language)
            table.add_row(
                language,
                change(reward.baseline, reward.candidate),
                change(fidelity.baseline, fidelity.candidate) if fidelity else "not judged",
            )
        table.add_row("all", change(evaluation.baseline_reward, evaluation.reward), "", style="bold")
        self._console.print(table)
        if evaluation.report is not None:
            self.say(f"the gate's verdict: {evaluation.report.verdict.value}")

    def swap(self, swap: SwapRecord) -> None:
        """Who answered across the changes of policy."""
        for flip in swap.flips:
            self.say(f"{flip.at_s:6.1f} s  policy {flip.version} {flip.cause}, {swap.in_flight_at(flip)} in flight")
        counts = ", ".join(f"policy {version}: {count}" for version, count in swap.replies_by_version.items())
        self.say(f"{len(swap.exchanges)} replies ({counts}), {len(swap.failures)} failed")

    def finish(self, results: DemoResults, report: Path) -> None:
        """What was shown, and where to read it."""
        gain = change(results.evaluation.baseline_reward, results.evaluation.reward)
        self._console.print(
            Text(f"Held-out reward {gain}; every request answered; rolled back. {self.clock.now_s:.0f} s")
        )
        self._console.print(Text(f"Report: {report}"))


class RunProgress:
    """A tuning run's bar, with a line per step above it."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task
        self._shown = 0

    def show(self, run: RunView) -> None:
        """Bring the bar to where the run is."""
        for step in run.steps[self._shown :]:
            self._progress.console.print(Text(f"   {step_line(step)}"))
        self._shown = len(run.steps)
        description = "compares with the untuned model" if self._shown == run.num_steps else "samples, scores, steps"
        self._progress.update(self._task, completed=self._shown, description=description)


def step_line(step: StepView) -> str:
    """One step in one line."""
    return (
        f"step {step.step}  reward {figure(step.reward_mean)}  {step.num_sequences} replies"
        f"  sampling {step.rollout_s:.1f} s, training {step.train_s:.1f} s"
    )


def change(before: float | None, after: float | None) -> str:
    """`0.812 → 0.934`."""
    return f"{figure(before)} → {figure(after)}"


def figure(value: float | None) -> str:
    """Three decimals; `n/a` for what is no number."""
    return f"{value:.3f}" if value is not None else "n/a"


def signed(value: float | None) -> str:
    """A difference: three decimals with their sign."""
    return f"{value:+.3f}" if value is not None else "n/a"
