"""`coloq bench front`: the front process alone. HTTP, keys, limits, fair queue; content comes from a fake that answers
at once, so what is measured is what the service adds to a request.

    load generator (child) ──loopback──► HTTP server (this process) ─► guard ─► limits ─► fair queue ─► fake content

Three fronts in turn: `plain` without limits, `limited` with every limit of tenant and key set, `logged` with a line of
log for each request as well, into the results' folder. The others log warnings only.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import uvloop
from fastapi import FastAPI
from rich.console import Console

from agent.brief import Brief
from agent.commission import Commission
from agent.config import UNLIMITED, LanguageSettings, LimitSettings, TenantSettings
from agent.episode import Reply
from agent.verdict import LanguageVerdict, SentenceVerdict, Verdict
from service.bench.client import LANGUAGE
from service.bench.load import Closed, LoadPlan, PromptRecipe, Target, run_load
from service.bench.report import Report, percentiles, table, written
from service.bench.statistics import LoadSummary, summarise
from service.config import NodeConfig
from service.fair_queue import FairQueue
from service.http.app import create_app
from service.http.fakes import FakeNode
from service.http.keys import NodeKeys
from service.secrets import AdminKey, hash_key, new_key
from service.serve import listening
from service.telemetry import Metrics, configure_logging
from service.tenancy.caller import CALLER
from service.tenancy.limits import Limiter
from service.tenancy.record import ALL_SCOPES, KeyRecord, Origin, TenantRecord
from service.tenants import Tenants

TENANT = "bench"
_NUM_WORDS = 40
_NUM_SLOTS = 64
_MANY = 10**9
FULL = LimitSettings(
    requests_per_minute=_MANY,
    tokens_per_minute=_MANY,
    concurrent_requests=_MANY,
    requests_per_day=_MANY,
    tokens_per_day=_MANY,
)
"""Every limit is kept, and none is reached."""
FRONTS = ("plain", "limited", "logged")


@dataclass(frozen=True, slots=True)
class FrontRow:
    """One load on one front in one round."""

    front: str
    round: int
    load: str
    cpu_us: float
    """Processor time of this process for one request, in microseconds; what other programs do hardly changes it."""
    summary: LoadSummary


@dataclass(slots=True)
class InstantContent:
    """service.http.ports.ContentPort: the same reply at once, after its turn in the queue."""

    queue: FairQueue
    limits: Limiter
    num_served: int = 0

    async def write(self, commission: Commission) -> Reply:
        """See ContentPort."""
        self.num_served += 1
        brief = commission.brief
        async with self.queue.turn(brief.tenant, commission.sampling.max_tokens):
            reply = _reply(brief, commission.request_id)
        self.limits.charge(brief.tenant, CALLER.get(), reply.prompt_tokens + reply.completion_tokens)
        return reply


@dataclass(frozen=True, slots=True)
class FrontOptions:
    """Options of the command line."""

    out: Path
    clients: Sequence[int]
    rounds: int
    warmup_s: float
    duration_s: float


def bench_front(options: FrontOptions, console: Console) -> None:
    """Measure every front and print the rows. Call it from the main thread."""
    report = Report("front", options.out, console, {"options": options})
    rows: list[FrontRow] = []
    with written(report):
        for number in range(1, options.rounds + 1):
            for front in FRONTS:
                report.say(f"round {number}: {front}")
                with _logging(front, report.log_path):
                    rows += uvloop.run(_loads(front, number, options, report))
        heads = ("front", "req/s", "ms p50 / p99", "CPU µs", "failed")
        console.print(table("The front alone", heads, list(map(cells_of, rows))))


def cells_of(row: FrontRow) -> tuple[str, ...]:
    """A row as a line of the table. A front that answered nothing within the window has no percentiles."""
    summary = row.summary
    return (
        f"{row.front}, {row.load}, round {row.round}",
        f"{summary.requests_per_s:.0f}",
        percentiles(summary.latency_ms, digits=2),
        f"{row.cpu_us:.0f}",
        str(summary.num_failed),
    )


async def _loads(front: str, number: int, options: FrontOptions, report: Report) -> list[FrontRow]:
    rows = []
    key = new_key(TENANT)
    app, content = _app(key.hash, UNLIMITED if front == "plain" else FULL)
    async with listening(app) as url:
        for clients in options.clients:
            plan = LoadPlan(
                Target("content", url, key=key.plain),
                Closed(clients),
                PromptRecipe(("tea", "lamp", "rain", "bread"), _NUM_WORDS, seed=0),
                max_tokens=64,
                temperature=1.0,
                warmup_s=options.warmup_s,
                duration_s=options.duration_s,
                seed=0,
            )
            cpu_s, served = time.process_time(), content.num_served
            summary = summarise(await run_load(plan), max_tokens=0)
            cpu_us = (time.process_time() - cpu_s) * 1e6 / max(content.num_served - served, 1)
            rows.append(FrontRow(front, number, plan.arrivals.label, cpu_us, summary))
            report.add("loads", rows[-1])
    return rows


def _app(key_hash: str, limits: LimitSettings) -> tuple[FastAPI, InstantContent]:
    settings = TenantSettings(id=TENANT, languages={LANGUAGE: LanguageSettings()}, limits=limits)
    now = datetime.now(UTC)
    key = KeyRecord("key_bench", "bench", key_hash, ALL_SCOPES, now, limits=limits)
    tenants = Tenants([TenantRecord(settings, Origin.FILE, now, now, (key,))])
    limiter = Limiter()
    content = InstantContent(FairQueue(lambda: _NUM_SLOTS, tenants.share), limiter)
    # The fake node's own content is another fake of the same port.
    node = FakeNode(content=content, limits=limiter, tenants=tenants)  # type: ignore[arg-type]
    return create_app(node, NodeKeys(tenants, AdminKey(hash_key("nobody's"))), NodeConfig(), Metrics()), content


def _reply(brief: Brief, request_id: str) -> Reply:
    text = "Tea and bread in the rain."
    sentence = SentenceVerdict(0, len(text), Verdict.PASS, brief.language, 0.98)
    return Reply(
        request_id=request_id,
        text=text,
        language=brief.language,
        verdict=LanguageVerdict(brief.language, Verdict.PASS, 1.0, (sentence,)),
        policy_version=0,
        finish_reason="stop",
        prompt_tokens=60,
        completion_tokens=8,
        duration_ms=0.1,
    )


@contextlib.contextmanager
def _logging(front: str, path: Path) -> Iterator[None]:
    if front != "logged":
        configure_logging("warning", "json")
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as log, contextlib.redirect_stderr(log):
        configure_logging("info", "json")
        yield
    configure_logging("warning", "json")
