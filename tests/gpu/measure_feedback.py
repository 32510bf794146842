"""Edits in, better replies out, once with a real model: python tests/gpu/measure_feedback.py --model FOLDER [--out DIR]

    briefs ─► replies ─► edits ─► pairs ─► reward model per language ─► GRPO beside traffic ─► gate ─► replies again

Not collected by pytest: made for CUDA vLLM, and with --cpu and small numbers for trying it out. Editors share a taste
that no part of the product knows: they want running text in one paragraph, without lists, digits, quotation marks,
brackets or hash signs. Whether replies got better is told by that taste, on briefs that neither the reward models nor
the policy were trained on. Prints one table, and writes what it rests on to feedback.json.
"""

import argparse
import asyncio
import collections
import json
import random
import re
import tempfile
import time
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx

from service.bench.learning.prompts import NUM_TOPICS, writing_briefs
from service.demo.interrupts import sigterm_as_ctrl_c
from service.secrets import new_key
from tests.integration.editors import (
    Answer,
    Brief,
    answers,
    exported_pairs,
    held_out_of,
    post_edits,
    preference_rate,
    stage,
    trained_model,
)
from tests.integration.node_process import NodeProcess
from tests.integration.test_node import Traffic, start_run
from tests.only_parts import only_in_toml

CONFIG = (
    """
[server]
port = 0

[engine]
model = "{model}"
dtype = "$dtype"
max_model_len = $max_model_len
max_num_seqs = $max_num_seqs
live_reserve = 16
kv_cache_gib = $kv_cache_gib
enforce_eager = $eager

[store]
held_out_share = 0.33

[agent]
max_tokens = 128
temperature = $temperature
hold_s = 280.0
repair = "off"

[slo]
ratio = $slo_ratio

[rewards.weights]
taste = $taste_weight
"""
    + only_in_toml(fidelity=0.5, length=1.0, repetition=0.25, substance=0.25)
    + """
[rewards]
models = {{ taste = {{ max_tokens = 512, ranking_timeout_s = 30.0 }} }}

[rewards.training]
min_pairs = $min_pairs
min_held_out = $min_held_out
epochs = $epochs
learning_rate = 1e-3
rank = 8
num_threads = $threads

[tuning]
steps = $steps
prompts_per_step = $prompts_per_step
group_size = 8
max_tokens = $max_tokens
temperature = $temperature
learning_rate = $learning_rate
parity_mean = 0.1

[tuning.gate]
num_prompts = 16
num_replies = $gate_replies
margin = 0.1

[[tenants]]
id = "acme"
key_hashes = ["{key_hash}"]
"""
)
"""Replies are wanted as the policy wrote them: nothing is repaired. Length counts much beside the taste: without it a
policy learnt to say hardly anything, since what is not written disturbs nobody."""

NUM_FRESH = 3
"""Fresh replies to each held-out brief, of either policy."""
LOGGED = ("Memory plan", "engine_started", "reward_backbone_opened", "memory_measured", "ranked_without_reward_model")
_COLOURS = re.compile(r"\x1b\[[\d;]*m")
_PLAIN = frozenset(" .,;!?'’-–")
"""What running text has beside letters."""
_LIST_NUMBERS = re.compile(r"^\s*\d+[.)]", re.MULTILINE)
_SPACE_BEFORE = re.compile(r" +([.,;!?])")


def plainness(text: str) -> float:
    """The planted taste: less one for each character in a hundred that no running text needs, whatever its length.
    "1. Tea" has one such among six: -16.7."""
    text = text.strip()
    return -100 * sum(map(_disturbs, text)) / max(len(text), 1)


class PlainEditor:
    """Makes one paragraph of plain sentences: no line breaks, lists, headings, digits, quotation marks, brackets."""

    def edit(self, text: str) -> str:
        text = _LIST_NUMBERS.sub(" ", text)
        plain = "".join(" " if _disturbs(character) else character for character in text.strip())
        return _SPACE_BEFORE.sub(r"\1", " ".join(plain.split()))


def _disturbs(character: str) -> bool:
    return not (character in _PLAIN or unicodedata.category(character)[0] in "LM")


@dataclass
class Measured:
    """What the table and the file are made from."""

    options: Mapping[str, Any]
    durations_s: dict[str, float] = field(default_factory=dict)
    languages: dict[str, dict[str, Any]] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    traffic: dict[str, Any] = field(default_factory=dict)
    log: dict[str, list[str]] = field(default_factory=dict)
    exit: tuple[int, int] | None = None
    """Exit status, and processes that outlived the node."""


def briefs_in(language: str, num_briefs: int, max_tokens: int) -> list[Brief]:
    """Different briefs that say how long a text should be, as bodies of requests."""
    briefs = writing_briefs(language, range(NUM_TOPICS), random.Random(f"briefs {language}"))
    briefs = [brief for brief in briefs if brief.min_words is not None]
    if num_briefs > len(briefs):
        raise SystemExit(f"--briefs must be at most {len(briefs)}, got {num_briefs}")
    bodies: list[Brief] = []
    for brief in briefs[:num_briefs]:
        asked = {name: getattr(brief, name) for name in ("instructions", "tone", "min_words", "max_words")}
        bodies.append({"kind": "create", "language": language, "max_tokens": max_tokens} | asked)
    return bodies


async def measure(node: NodeProcess, options: argparse.Namespace, measured: Measured) -> None:
    """The whole path."""
    languages: Sequence[str] = options.languages
    taken = measured.durations_s
    async with httpx.AsyncClient(base_url=node.url, timeout=300.0) as http:
        with stage("briefs answered", taken):
            briefs = [brief for code in languages for brief in briefs_in(code, options.briefs, options.max_tokens)]
            replies = await answers(http, node, briefs)
        with stage("edits posted", taken):
            await post_edits(http, node, replies, PlainEditor())
        held_out: list[Answer] = []
        for code in languages:
            pairs = await exported_pairs(http, node, code)
            held_out += held_out_of(pairs, [reply for reply in replies if reply.language == code])
            in_training = sum(not pair["held_out"] for pair in pairs)
            measured.languages[code] = {"pairs": in_training, "pairs_held_out": len(pairs) - in_training}
        for code, noted in measured.languages.items():
            if noted["pairs"] < options.min_pairs or noted["pairs_held_out"] < options.min_held_out:
                continue  # edits of replies in another language make no pairs, and a small model writes many of those
            with stage(f"reward model {code}", taken):
                training = await trained_model(http, node, code)
            models = (await http.get(f"/admin/rewards/{code}", headers=node.admin_headers)).json()
            found = {"state": training["state"], "reason": training["reason"], "steps": training["num_steps"]}
            noted["reward_model"] = found | {"accuracy": models["accuracy"]}
        fresh = [reply.brief for reply in held_out] * NUM_FRESH
        with stage("held-out replies before", taken):
            note_replies(measured, "before", await answers(http, node, fresh), held_out)
        with stage("tuning, gate, publication", taken):
            async with Traffic(http, node, num_clients=2, languages=languages, pause_s=options.pause_s) as traffic:
                await watch_run(http, node, await start_run(http, node, seed=0), measured)
                await asyncio.sleep(1.0)
        measured.traffic = of_traffic(traffic)
        with stage("held-out replies after", taken):
            note_replies(measured, "after", await answers(http, node, fresh), held_out)


async def watch_run(http: httpx.AsyncClient, node: NodeProcess, run_id: str, measured: Measured) -> None:
    """Until it ends; its steps are kept as they come, for a measurement that is ended before."""
    while measured.run.get("state", "running") in ("running", "stopping"):
        await asyncio.sleep(0.5)
        answer = await http.get(f"/admin/tuning/runs/{run_id}", headers=node.admin_headers)
        measured.run = answer.json()


def note_replies(measured: Measured, when: str, fresh: Sequence[Answer], held_out: Sequence[Answer]) -> None:
    """By language: how often they are preferred to what was served first, whether they are in the language, and what
    they are like."""
    rounds = [fresh[first : first + len(held_out)] for first in range(0, len(fresh), len(held_out))]
    for code, noted in measured.languages.items():
        served = [reply for reply in held_out if reply.language == code]
        own = [reply for replies in rounds for reply in replies if reply.language == code]
        if not own:
            continue
        tastes = [plainness(reply.text) for reply in own]
        noted[when] = {
            "preferred": round(preference_rate(own, served, plainness), 3),
            "plainness": round(sum(tastes) / len(tastes), 3),
            "plain": round(sum(taste == 0 for taste in tastes) / len(tastes), 3),
            "words": round(sum(len(reply.text.split()) for reply in own) / len(own), 1),
            "verdicts": dict(collections.Counter(reply.language_verdict for reply in own)),
            "versions": sorted({reply.policy_version for reply in own}),
            "examples": [reply.text for reply in own[:3]],
        }


def of_traffic(traffic: Traffic) -> dict[str, Any]:
    """What live requests got while the node tuned."""
    latencies = sorted(duration_s * 1000 for duration_s in traffic.durations_s)
    return {
        "requests": len(latencies),
        "failed": sum(status != 200 for status in traffic.statuses),
        "p50_ms": round(latencies[len(latencies) // 2], 1),
        "max_ms": round(latencies[-1], 1),
        "versions": sorted(set(traffic.versions)),
    }


def logged(node: NodeProcess) -> dict[str, list[str]]:
    """What the log says at some events, without times and colours."""
    lines = [_COLOURS.sub("", line) for line in node.log().splitlines()]
    return {event: [line.rpartition("] ")[2] for line in lines if event in line] for event in LOGGED}


def rows_of(measured: Measured) -> list[tuple[str, object]]:
    """The table."""
    rows: list[tuple[str, object]] = [(f"{name}, s", taken) for name, taken in measured.durations_s.items()]
    for code, noted in measured.languages.items():
        model = noted.get("reward_model", {})
        rows += [
            (f"{code}: pairs, held out", (noted["pairs"], noted["pairs_held_out"])),
            (f"{code}: reward model", f"{model.get('state')}, held-out accuracy {model.get('accuracy')}"),
            *((f"{code}: {name}, before / after", _both(noted, name)) for name in _COMPARED),
        ]
    run = measured.run
    rows += [("run", f"{run.get('state')}, published {run.get('published')} {run.get('reason') or ''}")]
    rows += [(f"step {step['step']}", _step(step)) for step in run.get("steps", ())]
    rows += _gate(run)
    rows += [("live requests during the run", measured.traffic)]
    rows += [(event, line) for event, lines in measured.log.items() for line in lines]
    return [*rows, ("exit status, processes left", measured.exit)]


_COMPARED = ("preferred", "plainness", "plain", "words", "verdicts")


def _both(noted: Mapping[str, Any], name: str) -> str:
    return " / ".join(str(noted.get(when, {}).get(name)) for when in ("before", "after"))


def _step(step: Mapping[str, Any]) -> dict[str, Any]:
    names = ("reward_mean", "reward_std", "rollout_s", "score_s", "train_s", "mismatch_mean", "grad_norm", "entropy")
    shown = {name: round(step[name], 4) for name in names if step[name] is not None}
    return shown | {"sequences": step["num_sequences"], "taste": round(step["parts"].get("taste") or 0.0, 3)}


def _gate(run: Mapping[str, Any]) -> list[tuple[str, object]]:
    report = (run.get("evaluation") or {}).get("report")
    if report is None:
        return []
    improvement = report["improvement"] or {}
    rewards = {
        row["language"]: f"{row['baseline']:.3f} to {row['candidate']:.3f}, {row['verdict']}"
        for row in report["comparisons"]
        if row["metric"] == "reward" and row["candidate"] is not None and row["baseline"] is not None
    }
    return [
        ("gate", f"{report['verdict']} failed={report['failed']} undetermined={report['undetermined']}"),
        ("gate: improvement", {name: improvement.get(name) for name in ("difference", "low", "shown")}),
        *((f"gate: reward {code}", row) for code, row in rewards.items()),
    ]


def configuration(options: argparse.Namespace) -> str:
    """The node's file; `{model}` and `{key_hash}` are left for NodeProcess."""
    values = dict(vars(options), eager=str(options.eager).lower())
    text = re.sub(r"\$(\w+)", lambda found: str(values[found[1]]), CONFIG)
    return text + "".join(f"[tenants.languages.{code}]\n" for code in options.languages)


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; what differs on a CPU follows from --cpu."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", type=Path, required=True)
    add("--cpu", action="store_true", help="float32, a small engine, an SLO that leaves tuning its turns")
    add("--eager", action="store_true", help="start the engine without CUDA graphs")
    add("--languages", type=lambda text: text.split(","), default=["en", "de", "fr", "pl"])
    add("--briefs", type=int, default=120, help="of each language")
    add("--max-tokens", type=int, default=64)
    add("--temperature", type=float, default=0.9, help="of replies and of rollouts")
    add("--steps", type=int, default=10)
    add("--prompts-per-step", type=int, default=8)
    add("--learning-rate", type=float, default=5e-4)
    add("--taste-weight", type=float, default=1.5, help="beside 2.0 of the product's own parts")
    add("--gate-replies", type=int, default=48)
    add("--epochs", type=int, default=2, help="of a reward model's training")
    add("--min-pairs", type=int, default=24)
    add("--min-held-out", type=int, default=8)
    add("--threads", type=int, default=None, help="of a reward model's training; unset: 12, on a CPU node 2")
    add("--slo-ratio", type=float, default=None, help="slo.ratio; unset: 1.05, on a CPU 50")
    add("--pause-s", type=float, default=0.1, help="between a live client's requests")
    add("--out", type=Path, default=None, help="folder for feedback.json and the node's log")
    options = parser.parse_args(arguments)
    on_gpu = {"dtype": "bfloat16", "max_model_len": 1024, "max_num_seqs": 128, "kv_cache_gib": 8.0}
    on_cpu = {"dtype": "float32", "max_model_len": 512, "max_num_seqs": 32, "kv_cache_gib": 0.5}
    vars(options).update(on_cpu if options.cpu else on_gpu)
    options.slo_ratio = options.slo_ratio or (50.0 if options.cpu else 1.05)
    options.threads = options.threads or (2 if options.cpu else 12)
    return options


def run(options: argparse.Namespace, folder: Path) -> Measured:
    """Start a node, measure, stop it; what was found so far is kept when a stage fails."""
    measured = Measured({name: str(value) for name, value in vars(options).items()})
    node = NodeProcess(folder, options.model.resolve(), new_key("acme"), config=configuration(options))
    began = time.perf_counter()
    try:
        with stage("start until ready", measured.durations_s):
            node.start()
        asyncio.run(measure(node, options, measured))
        measured.log = logged(node)
        keep_log(node, options.out, "node.log")
        with stage("stop", measured.durations_s):
            status, left = node.stop()
        measured.exit = status, len(left)
        with stage("start again with reward models", measured.durations_s):
            node.start()
        measured.log |= {f"again: {event}": lines for event, lines in logged(node).items()}
    finally:
        keep_log(node, options.out, "again.log" if measured.exit else "node.log")
        node.kill()
        measured.durations_s["all"] = round(time.perf_counter() - began, 1)
        report(measured, options.out)
    return measured


def keep_log(node: NodeProcess, out: Path | None, name: str) -> None:
    """A copy of the node's log."""
    if out is not None:
        (out / name).write_text(node.log())


def report(measured: Measured, out: Path | None) -> None:
    """Write the file, and print the table last."""
    if out is not None:
        (out / "feedback.json").write_text(json.dumps(asdict(measured), indent=2, ensure_ascii=False) + "\n")
    for name, value in rows_of(measured):
        print(f"{name:45} {value}", flush=True)


def main() -> None:
    """Run it."""
    options = options_of()
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    with sigterm_as_ctrl_c(), tempfile.TemporaryDirectory() as folder:
        run(options, Path(folder))


if __name__ == "__main__":
    main()
