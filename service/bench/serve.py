"""`coloq bench serve`: a node under load, alone or beside bare vLLM on the same model and the same prompts.

    each round: node ─► every load ─► stop        with --against vllm, then: vLLM ─► the same loads ─► stop

Rounds alternate, so that a drift of the machine falls on both.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console

from service.bench.charts import grouped_bars
from service.bench.load import Arrivals, LoadResult, PromptRecipe, Target, run_load
from service.bench.node import NodeSettings, bench_node
from service.bench.options import BenchOptions, content_of
from service.bench.peers.vllm_server import serve_vllm
from service.bench.prompt import at_server_without_templates, calibrate
from service.bench.report import Report, interval, percentiles, table, written
from service.bench.statistics import (
    LoadSummary,
    Ratio,
    first_tokens_ms,
    inter_tokens_ms,
    latencies_ms,
    merged,
    quantile_ratio,
    summarise,
)
from service.demo.interrupts import sigterm_as_ctrl_c

NODE, PEER = "coloq", "vllm"


@dataclass(frozen=True, slots=True)
class ServeRow:
    """One load on one system in one round."""

    system: str
    round: int
    load: str
    summary: LoadSummary


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """A load on both systems, all rounds together: the node's figure over vLLM's."""

    load: str
    requests_per_s: float | None
    latency_p50: Ratio | None
    latency_p99: Ratio | None
    first_token_p99: Ratio | None
    """Needs a streamed peer; the node's own first token is measured inside it."""
    inter_token_p99: Ratio | None


@dataclass(slots=True)
class ServeBench:
    """One run of the command."""

    options: BenchOptions
    loads: Sequence[Arrivals]
    against_vllm: bool
    stream_peer: bool
    rounds: int
    report: Report
    results: dict[tuple[str, Arrivals], list[LoadResult]] = field(default_factory=dict)

    def play(self) -> None:
        """Measure everything. Call it from the main thread."""
        model = self.options.model_path()
        settings = self.options.node(model)
        recipe: PromptRecipe | None = None
        for number in range(1, self.rounds + 1):
            recipe = self._node_round(number, settings, recipe)
            if self.against_vllm:
                asyncio.run(self._peer_round(number, settings, at_server_without_templates(recipe, model)))
        for arrivals in self.loads if self.against_vllm else ():
            self.report.add("comparison", self.comparison(arrivals))

    def _node_round(self, number: int, settings: NodeSettings, recipe: PromptRecipe | None) -> PromptRecipe:
        self.report.say("starting the node")
        with (
            tempfile.TemporaryDirectory(prefix="coloq-bench-") as folder,
            bench_node(Path(folder), settings, hosted=False, log_path=self.report.log_path) as node,
        ):
            target = content_of(node)
            return asyncio.run(self._loads(NODE, number, target, recipe))

    async def _peer_round(self, number: int, settings: NodeSettings, recipe: PromptRecipe) -> None:
        self.report.say("starting vLLM")
        config = settings.config
        async with serve_vllm(settings.model, config.engine, memory_fraction=config.cuda.memory_fraction) as url:
            target = Target("completions", url, model=str(settings.model), stream=self.stream_peer)
            await self._loads(PEER, number, target, recipe)

    async def _loads(self, system: str, number: int, target: Target, recipe: PromptRecipe | None) -> PromptRecipe:
        if recipe is None:
            recipe = await calibrate(target, self.options.prompt_tokens, seed=self.options.seed)
            self.report.say(f"prompts of {recipe.num_words} words")
        for arrivals in self.loads:
            result = await run_load(self.options.load(target, arrivals, recipe))
            self.results.setdefault((system, arrivals), []).append(result)
            row = ServeRow(system, number, arrivals.label, summarise(result, self.options.max_tokens))
            self.report.add("loads", row)
            self.report.say(line_of(row))
        return recipe

    def comparison(self, arrivals: Arrivals) -> ComparisonRow:
        """The node over vLLM at one load, all rounds together."""
        node, peer = (merged(self.results[system, arrivals]) for system in (NODE, PEER))
        return ComparisonRow(
            load=arrivals.label,
            requests_per_s=node.done_in_window / peer.done_in_window if peer.done_in_window else None,
            latency_p50=quantile_ratio(latencies_ms(node.exchanges), latencies_ms(peer.exchanges), 0.5),
            latency_p99=quantile_ratio(latencies_ms(node.exchanges), latencies_ms(peer.exchanges), 0.99),
            first_token_p99=quantile_ratio(first_tokens_ms(node.exchanges), first_tokens_ms(peer.exchanges), 0.99),
            inter_token_p99=quantile_ratio(inter_tokens_ms(node.exchanges), inter_tokens_ms(peer.exchanges), 0.99),
        )

    def summary(self, system: str, arrivals: Arrivals) -> LoadSummary:
        """All rounds of one load together."""
        return summarise(merged(self.results[system, arrivals]), self.options.max_tokens)


def bench_serve(
    options: BenchOptions,
    loads: Sequence[Arrivals],
    *,
    against_vllm: bool,
    stream_peer: bool,
    rounds: int,
    console: Console,
) -> Report:
    """Run the bench and write its results; returns the report.

    Raises:
        ColoqError: a system did not start, or could not be measured.
    """
    configuration = {"options": options, "loads": list(loads), "rounds": rounds, "against_vllm": against_vllm}
    report = Report("serve", options.out, console, configuration)
    with sigterm_as_ctrl_c(), written(report):
        bench = ServeBench(options, loads, against_vllm, stream_peer, rounds, report)
        bench.play()
        _show(bench, console)
    return report


def line_of(row: ServeRow) -> str:
    """A row as a line of progress."""
    summary = row.summary
    return (
        f"{row.system} {row.load}: {summary.requests_per_s:.1f} req/s, {summary.tokens_per_s:.0f} tok/s, "
        f"latency p50 / p99 {percentiles(summary.latency_ms)} ms, "
        f"{summary.num_failed} failed, {summary.num_short} short"
    )


def _show(bench: ServeBench, console: Console) -> None:
    systems = (NODE, PEER) if bench.against_vllm else (NODE,)
    heads = ("load", "system", "req/s", "tok/s", "latency p50 / p99 ms", "first token", "inter-token", "failed")
    console.print(table("Loads", heads, [_load_cells(bench, a, system) for a in bench.loads for system in systems]))
    if bench.against_vllm:
        ratios = ("load", "throughput", "latency p50", "latency p99")
        console.print(table("Node over vLLM", ratios, [_ratio_cells(bench.comparison(a)) for a in bench.loads]))
    bench.report.chart("latency", _chart(bench, systems))


def _load_cells(bench: ServeBench, arrivals: Arrivals, system: str) -> tuple[str, ...]:
    it = bench.summary(system, arrivals)
    rates = (f"{it.requests_per_s:.2f}", f"{it.tokens_per_s:.0f}")
    times = (percentiles(it.latency_ms), percentiles(it.first_token_ms), percentiles(it.inter_token_ms))
    return (arrivals.label, system, *rates, *times, str(it.num_failed))


def _ratio_cells(row: ComparisonRow) -> tuple[str, ...]:
    throughput = "–" if row.requests_per_s is None else f"{row.requests_per_s:.3f}"
    return (row.load, throughput, interval(row.latency_p50), interval(row.latency_p99))


def _chart(bench: ServeBench, systems: Sequence[str]) -> Figure:
    series = {}
    for system in systems:
        spreads = [bench.summary(system, arrivals).latency_ms for arrivals in bench.loads]
        series[system] = [[it.p50 if it else 0.0 for it in spreads], [it.p99 if it else 0.0 for it in spreads]]
    labels = [arrivals.label for arrivals in bench.loads]
    return grouped_bars(["latency, median", "latency, 99th percentile"], labels, series, "ms")
