"""`coloq bench flood`: what one tenant's flood does to another tenant's latency, on a real engine.

    each round: alone ─► beside a neighbour that keeps its half of the engine busy ─► beside a flood of that neighbour

The first step tells what a shared engine costs: a batch of more sequences takes longer, whoever sent them. The second
is the flood's own doing, and what the fair queue has to keep small.
"""

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from service.bench.client import LANGUAGE
from service.bench.load import Arrivals, Closed, LoadResult, PromptRecipe, Target, run_load
from service.bench.node import NodeSettings
from service.bench.options import BenchOptions
from service.bench.prompt import calibrate
from service.bench.report import Report, interval, percentiles, table, written
from service.bench.statistics import LoadSummary, Ratio, latencies_ms, merged, quantile_ratio, summarise
from service.demo.interrupts import sigterm_as_ctrl_c
from service.demo.node_process import running_node
from service.secrets import new_key

NEIGHBOUR = "neighbour"
PHASES = ("alone", "shared", "flood")


@dataclass(frozen=True, slots=True)
class FloodRow:
    """What both tenants got in one phase of one round."""

    phase: str
    round: int
    tenant: LoadSummary
    neighbour: LoadSummary | None


@dataclass(frozen=True, slots=True)
class FloodVerdict:
    """The tenant's 99th percentile beside the flood over that of another phase, all rounds together."""

    over: str
    p99: Ratio | None


@dataclass(frozen=True, slots=True)
class _Tenants:
    """Both tenants' ways to the node."""

    tenant: Target
    neighbour: Target


@dataclass(slots=True)
class FloodBench:
    """One run of the command."""

    options: BenchOptions
    clients: int
    """Of the tenant that is watched; they wait for their answers."""
    flood_clients: int
    rounds: int
    report: Report
    results: dict[str, list[LoadResult]] = field(default_factory=dict)

    async def play(self, tenants: _Tenants, num_seqs: int) -> None:
        """Measure every phase in turn, as often as there are rounds."""
        recipe = await calibrate(tenants.tenant, self.options.prompt_tokens, seed=self.options.seed)
        neighbours: dict[str, Arrivals | None] = {
            "alone": None,
            "shared": Closed(max(num_seqs // 2, 1)),
            "flood": Closed(self.flood_clients),
        }
        for number in range(1, self.rounds + 1):
            for phase in PHASES:
                await self._measure(number, phase, tenants, recipe, neighbours[phase])
        for phase in PHASES[:-1]:
            self.report.add("verdict", self.verdict(phase))

    async def _measure(
        self, number: int, phase: str, tenants: _Tenants, recipe: PromptRecipe, neighbour: Arrivals | None
    ) -> None:
        loads = [run_load(self.options.load(tenants.tenant, Closed(self.clients), recipe))]
        if neighbour is not None:
            loads.append(run_load(self.options.load(tenants.neighbour, neighbour, recipe)))
        results = await asyncio.gather(*loads)
        self.results.setdefault(phase, []).append(results[0])
        watched, *others = (summarise(result, self.options.max_tokens) for result in results)
        self.report.add("phases", FloodRow(phase, number, watched, others[0] if others else None))
        beside = f", neighbour {others[0].requests_per_s:.1f} req/s" if others else ""
        self.report.say(f"{phase}: latency p50 / p99 {percentiles(watched.latency_ms)} ms{beside}")

    def verdict(self, phase: str) -> FloodVerdict:
        """The flood against one of the other phases."""
        flood, other = (latencies_ms(merged(self.results[name]).exchanges) for name in ("flood", phase))
        return FloodVerdict(phase, quantile_ratio(flood, other, 0.99))

    def present(self, console: Console) -> None:
        """Print what came out."""
        rows = []
        for phase in PHASES:
            summary = summarise(merged(self.results[phase]), self.options.max_tokens)
            cells = (f"{summary.requests_per_s:.2f}", percentiles(summary.latency_ms), str(summary.num_failed))
            over = interval(self.verdict(phase).p99) if phase != "flood" else "–"
            rows.append((phase, *cells, over))
        heads = ("the tenant", "req/s", "latency p50 / p99 ms", "failed", "p99 of flood over this")
        console.print(table("A tenant beside a flooding one", heads, rows))


def bench_flood(
    options: BenchOptions, *, clients: int, flood_clients: int, rounds: int, console: Console
) -> FloodBench:
    """Run the bench and write its results. Call it from the main thread.

    Raises:
        ColoqError: the node did not start, or could not be measured.
    """
    configuration = {"options": options, "clients": clients, "flood_clients": flood_clients, "rounds": rounds}
    report = Report("flood", options.out, console, configuration)
    settings = options.node(options.model_path())
    with sigterm_as_ctrl_c(), written(report):
        bench = FloodBench(options, clients, flood_clients, rounds, report)
        report.say("starting the node")
        with _two_tenants(settings, report.log_path) as tenants:
            asyncio.run(bench.play(tenants, settings.config.engine.max_num_seqs))
        bench.present(console)
    return bench


@contextmanager
def _two_tenants(settings: NodeSettings, log_path: Path) -> Iterator[_Tenants]:
    """A node of two tenants for the length of the block."""
    key = new_key(NEIGHBOUR)
    with (
        tempfile.TemporaryDirectory(prefix="coloq-bench-") as folder,
        running_node(Path(folder), log_path, _with_neighbour(settings, key.hash), lambda line: None) as access,
    ):
        yield _Tenants(
            Target("content", access.url, key=access.tenant_key), Target("content", access.url, key=key.plain)
        )


def _with_neighbour(settings: NodeSettings, key_hash: str) -> Callable[[str], str]:
    neighbour = f'\n[[tenants]]\nid = "{NEIGHBOUR}"\nkey_hashes = ["{key_hash}"]\n[tenants.languages.{LANGUAGE}]\n'
    return lambda own_hash: settings.text(own_hash) + neighbour
