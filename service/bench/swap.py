"""`coloq bench swap`: many publications under load, and what requests notice of them.

    load without end ─► publications, each between two windows in which the engine's longest gap is read ─► load stops

Looked for: requests that failed, replies that were cut, versions that went backwards, gaps between tokens, memory.
"""

import asyncio
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from matplotlib.figure import Figure
from rich.console import Console

from service.bench.charts import paired_points
from service.bench.control import ControlClient, Publication, PublishOrder
from service.bench.failure import BenchFailed
from service.bench.load import Arrivals, Exchange, LoadResult, run_load
from service.bench.machine import Memory, memory_of
from service.bench.node import BenchNode, bench_node
from service.bench.options import BenchOptions, content_of
from service.bench.prompt import calibrate
from service.bench.report import Report, table, written
from service.bench.statistics import LoadSummary, Spread, spread, summarise
from service.demo.interrupts import sigterm_as_ctrl_c

_POLL_S = 0.5
_LONGEST_S = 24 * 3600.0
_SETTLED_SHARE = 0.1
"""Memory is compared from here on: adapter slots and caches have filled by then."""


@dataclass(frozen=True, slots=True)
class MemorySample:
    """Memory after so many publications."""

    num_publications: int
    memory: Memory


@dataclass(frozen=True, slots=True)
class SwapRow:
    """The whole series."""

    num_publications: int
    load: LoadSummary
    num_truncated: int
    """Replies that ended at a length which was not theirs."""
    num_ended_early: int
    """Replies that the model ended itself."""
    num_backwards: int
    """Requests that got an older policy than one which had been answered before they were sent."""
    num_versions: int
    """Different policies that answered."""
    publish_ms: Spread | None
    quiet_gap_ms: Spread | None
    """Longest gap between engine steps in the window before each publication."""
    swap_gap_ms: Spread | None
    """The same in the window that begins with the publication."""
    added_gap_ms: Spread | None
    """Their difference, publication by publication. Windows without steps are left out."""
    memory_kind: str
    memory_settled_mib: float
    memory_last_mib: float
    memory_highest_mib: float
    """Since it had settled."""


@dataclass(slots=True)
class SwapBench:
    """One run of the command."""

    options: BenchOptions
    arrivals: Arrivals
    order: PublishOrder
    report: Report
    memory: list[MemorySample] = field(default_factory=list)
    publications: list[Publication] = field(default_factory=list)

    async def play(self, node: BenchNode) -> SwapRow:
        """Measure everything on a hosted node."""
        prompt = await calibrate(content_of(node), self.options.prompt_tokens, seed=self.options.seed)
        plan = self.options.load(content_of(node), self.arrivals, prompt, duration_s=_LONGEST_S)
        with tempfile.TemporaryDirectory(prefix="coloq-bench-") as folder:
            stop_file = Path(folder) / "stop"
            plan = msgspec.structs.replace(plan, stop_file=str(stop_file))
            load = asyncio.create_task(run_load(plan))
            await asyncio.sleep(self.options.warmup_s)
            try:
                await self._publish_all(node)
            finally:
                stop_file.touch()
                self.report.add("publications", *self.publications)
                self.report.add("memory", *self.memory)
                result = await load
        return self._row(result)

    def present(self, row: SwapRow, console: Console) -> None:
        """Keep the series; show and chart what was measured."""
        self.report.add("series", row)
        _show(row, console)
        self.report.chart("gaps", _chart(self.publications))

    async def _publish_all(self, node: BenchNode) -> None:
        async with ControlClient(node.control_url or "", node.admin_key) as control:
            pids = (await control.engine()).pids
            await control.publish(self.order)
            while True:
                view = await control.publications()
                self.publications = view.publications
                memory = await asyncio.to_thread(memory_of, pids)
                self.memory.append(MemorySample(len(view.publications), memory))
                if not view.running:
                    break
                await asyncio.sleep(_POLL_S)
        self.report.say(f"{len(view.publications)} publications")
        if view.failure is not None:
            raise BenchFailed(f"every publication must succeed, but after {len(view.publications)}: {view.failure}")

    def _row(self, result: LoadResult) -> SwapRow:
        answered = [item for item in result.exchanges if item.error is None]
        short = [item for item in answered if (item.completion_tokens or 0) < self.options.max_tokens]
        seen = [item for item in self.publications if item.quiet.num_steps and item.swap.num_steps]
        settled = self.memory_since_settled()
        return SwapRow(
            num_publications=len(self.publications),
            load=summarise(result, self.options.max_tokens),
            num_truncated=sum(item.finish_reason != "stop" for item in short),
            num_ended_early=sum(item.finish_reason == "stop" for item in short),
            num_backwards=num_backwards(item for item in answered if item.done_s <= self._series_end_s()),
            num_versions=len({item.policy_version for item in answered}),
            publish_ms=spread(item.publish_ms for item in self.publications),
            quiet_gap_ms=spread(item.quiet.max_ms for item in seen),
            swap_gap_ms=spread(item.swap.max_ms for item in seen),
            added_gap_ms=spread(item.swap.max_ms - item.quiet.max_ms for item in seen),
            memory_kind=settled[0].memory.kind,
            memory_settled_mib=settled[0].memory.mib,
            memory_last_mib=settled[-1].memory.mib,
            memory_highest_mib=max(sample.memory.mib for sample in settled),
        )

    def _series_end_s(self) -> float:
        """The last publication's window: after it method `full` goes back to the base model's weights."""
        last_s = max((item.at_s for item in self.publications), default=0.0)
        return last_s + self.order.window_ms / 1000

    def memory_since_settled(self) -> list[MemorySample]:
        """Samples after the first publications."""
        first = self.order.count * _SETTLED_SHARE
        return [sample for sample in self.memory if sample.num_publications >= first] or self.memory[-1:]


def num_backwards(exchanges: Iterable[Exchange]) -> int:
    """Requests that got an older policy than one which had been answered before they were sent."""
    versioned = [item for item in exchanges if item.policy_version is not None]
    done = sorted((item.done_s, item.policy_version or 0) for item in versioned)
    count, newest, place = 0, 0, 0
    for item in sorted(versioned, key=lambda item: item.sent_s):
        while place < len(done) and done[place][0] < item.sent_s:
            newest = max(newest, done[place][1])
            place += 1
        count += (item.policy_version or 0) < newest
    return count


def bench_swap(options: BenchOptions, arrivals: Arrivals, order: PublishOrder, *, console: Console) -> Report:
    """Run the bench and write its results; returns the report. Call it from the main thread.

    Raises:
        ColoqError: the node did not start, a publication failed, or nothing could be measured.
    """
    bench = swap_of(options, arrivals, order, console=console)
    report = bench.report
    with sigterm_as_ctrl_c(), written(report):
        settings = options.node(options.model_path())
        report.say("starting the node")
        with (
            tempfile.TemporaryDirectory(prefix="coloq-bench-") as folder,
            bench_node(Path(folder), settings, hosted=True, log_path=report.log_path) as node,
        ):
            row = asyncio.run(bench.play(node))
        bench.present(row, console)
    return report


def swap_of(options: BenchOptions, arrivals: Arrivals, order: PublishOrder, *, console: Console) -> SwapBench:
    """The bench with an empty report."""
    configuration = {"options": options, "load": arrivals, "publish": order.model_dump()}
    return SwapBench(options, arrivals, order, Report("swap", options.out, console, configuration))


def _chart(publications: Sequence[Publication]) -> Figure:
    quiet, swap = [item.quiet.max_ms for item in publications], [item.swap.max_ms for item in publications]
    return paired_points(quiet, swap, "ms")


def _show(row: SwapRow, console: Console) -> None:
    facts = {
        "publications": str(row.num_publications),
        "requests": str(row.load.num_requests),
        "failed": str(row.load.num_failed),
        "truncated": str(row.num_truncated),
        "ended by the model": str(row.num_ended_early),
        "versions backwards": str(row.num_backwards),
        "versions that answered": str(row.num_versions),
        "publication, ms": _cell(row.publish_ms),
        "longest gap before, ms": _cell(row.quiet_gap_ms),
        "longest gap with publication, ms": _cell(row.swap_gap_ms),
        "added gap, ms": _cell(row.added_gap_ms),
        f"memory ({row.memory_kind}), MiB, settled / last / highest": (
            f"{row.memory_settled_mib:.0f} / {row.memory_last_mib:.0f} / {row.memory_highest_mib:.0f}"
        ),
    }
    console.print(table("Swaps", ("", "p50 / p99 / max where three"), list(facts.items())))


def _cell(values: Spread | None) -> str:
    return "–" if values is None else f"{values.p50:.2f} / {values.p99:.2f} / {values.max:.2f}"
