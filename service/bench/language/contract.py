"""`coloq bench language`: how often the language contract finds a wrong sentence, cries wolf, and what it costs.

    domain, language ─► clean replies ─► false alarms
                    ├─► mixed replies ─► caught, and the right sentence named
                    ├─► short lines   ─► false alarms
                    └─► 500 characters ─► microseconds of CPU

Everything is drawn with fixed seeds: the same code gives the same shares.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rich.console import Console

from agent.contract import LanguageContract
from agent.language import FastTextDetector
from agent.verdict import LanguageVerdict, Verdict
from service.bench.failure import BenchFailed
from service.bench.language.samples import (
    Domain,
    Mixed,
    Split,
    clean_replies,
    domains,
    mixed_replies,
    other_language,
    text_of_length,
)
from service.bench.report import Report, table, written

LEAST_CAUGHT = 0.98
MOST_ALARMS = 0.03
MOST_CPU_US = 1000.0
REPLY_CHARACTERS = 500
_TIMED_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class LanguageOptions:
    """Options of the command line."""

    out: Path
    num_replies: int
    """Of each kind, domain and language."""
    split: Split
    num_timings: int = 100
    """Judgements of a reply of 500 characters."""


@dataclass(frozen=True, slots=True)
class LanguageRow:
    """One language in one domain. Shares are in [0, 1]."""

    domain: str
    language: str
    other: str
    """Language of the wrong sentence."""
    caught: float
    """Mixed replies that failed."""
    named: float
    """Mixed replies of which the wrong sentence failed, and no other."""
    false_alarms: float
    """Clean replies that failed."""
    undetermined: float
    """Clean replies that were not told."""
    short_alarms: float | None
    """Short lines that failed, each alone; None where the domain has none."""
    cpu_us: float
    """Microseconds of CPU for a reply of 500 characters."""


def bench_language(options: LanguageOptions, console: Console) -> None:
    """Measure, and write `language.json` and `language.md`.

    Raises:
        BenchFailed: over all languages of a domain fewer wrong sentences were caught than promised, or more false
            alarms raised. The results are written before.
    """
    configuration = {"num_replies": options.num_replies, "split": options.split.value}
    with written(Report("language", options.out, console, configuration)) as report:
        contract = LanguageContract(FastTextDetector())
        rows = []
        for domain in domains(options.split):
            for language in domain.sentences:
                rows.append(measure(contract, domain, language, options))
                report.add("languages", rows[-1])
        (options.out / "language.md").write_text(markdown(rows), encoding="utf-8")
        console.print(table("the language contract", _HEADS, [_cells(row) for row in [*rows, *means_of(rows)]]))
        check_promise(means_of(rows))


def measure(contract: LanguageContract, domain: Domain, language: str, options: LanguageOptions) -> LanguageRow:
    """One row."""
    num_replies = options.num_replies
    clean = [contract.judge(text, language).verdict for text in clean_replies(domain, language, num_replies)]
    mixed = mixed_replies(domain, language, num_replies)
    verdicts = [contract.judge(reply.text, language) for reply in mixed]
    short = [contract.judge(line, language).verdict for line in domain.short.get(language, ())]
    return LanguageRow(
        domain=domain.name,
        language=language,
        other=other_language(language),
        caught=fmean(verdict.verdict is Verdict.FAILED for verdict in verdicts),
        named=fmean(_names(verdict, reply) for verdict, reply in zip(verdicts, mixed, strict=True)),
        false_alarms=clean.count(Verdict.FAILED) / len(clean),
        undetermined=clean.count(Verdict.UNDETERMINED) / len(clean),
        short_alarms=short.count(Verdict.FAILED) / len(short) if short else None,
        cpu_us=_cpu_us(contract, text_of_length(domain, language, REPLY_CHARACTERS), language, options.num_timings),
    )


def _names(verdict: LanguageVerdict, reply: Mixed) -> bool:
    """Whether what failed is the wrong sentence, or parts of it, and nothing else."""
    failed = [(item.start, item.end) for item in verdict.sentences if item.verdict is Verdict.FAILED]
    return bool(failed) and all(reply.start <= start and end <= reply.end for start, end in failed)


def _cpu_us(contract: LanguageContract, text: str, language: str, num_timings: int) -> float:
    """The least of several rounds: the one that other processes disturbed least."""
    contract.judge(text, language)
    calls = -(-num_timings // _TIMED_ROUNDS)
    rounds = []
    for _ in range(_TIMED_ROUNDS):
        started = time.process_time()
        for _ in range(calls):
            contract.judge(text, language)
        rounds.append((time.process_time() - started) / calls * 1e6)
    return min(rounds)


def means_of(rows: Sequence[LanguageRow]) -> list[LanguageRow]:
    """Each domain over its languages; short lines over those that have some."""
    means = []
    for name in dict.fromkeys(row.domain for row in rows):
        of_domain = [row for row in rows if row.domain == name]
        short = [row.short_alarms for row in of_domain if row.short_alarms is not None]
        means.append(
            LanguageRow(
                domain=name,
                language=f"all {len(of_domain)}",
                other="",
                caught=fmean(row.caught for row in of_domain),
                named=fmean(row.named for row in of_domain),
                false_alarms=fmean(row.false_alarms for row in of_domain),
                undetermined=fmean(row.undetermined for row in of_domain),
                short_alarms=fmean(short) if short else None,
                cpu_us=fmean(row.cpu_us for row in of_domain),
            )
        )
    return means


def check_promise(means: Sequence[LanguageRow]) -> None:
    """Raises BenchFailed when a domain's means break the promise."""
    missed = [
        f"{row.domain}: caught {row.caught:.2%}, false alarms {row.false_alarms:.2%}"
        for row in means
        if row.caught < LEAST_CAUGHT or row.false_alarms > MOST_ALARMS
    ]
    if missed:
        raise BenchFailed(
            f"must catch at least {LEAST_CAUGHT:.0%} with at most {MOST_ALARMS:.0%} false alarms, got "
            + "; ".join(missed)
        )


_HEADS = ("domain", "language", "caught", "named", "false alarms", "not told", "short alarms", "µs / 500 chars")


def _cells(row: LanguageRow) -> list[str]:
    short = "–" if row.short_alarms is None else f"{row.short_alarms:.1%}"
    shares = [f"{share:.1%}" for share in (row.caught, row.named, row.false_alarms, row.undetermined)]
    return [row.domain, row.language, *shares, short, f"{row.cpu_us:.0f}"]


def markdown(rows: Sequence[LanguageRow]) -> str:
    """The rows and each domain's means as a table."""
    lines = [list(_HEADS), ["---"] * len(_HEADS), *map(_cells, rows), *map(_cells, means_of(rows))]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
