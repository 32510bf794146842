"""The whole node on one GPU, measured: python tests/gpu/measure_node.py --model FOLDER [--steps 6]

Not collected by pytest: needs CUDA vLLM. Starts `coloq serve`, sends briefs, tunes with requests in flight, publishes,
rolls back, and prints one table: start, views, step time, parity, latency before and during tuning, rollback.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from service.secrets import new_key
from tests.integration.node_process import NodeProcess
from tests.integration.test_node import Traffic, ask, ended_run, greedy, start_run

CONFIG = """
[server]
port = 0
[engine]
model = "{model}"
dtype = "bfloat16"
max_model_len = 1024
max_num_seqs = 128
live_reserve = 16
kv_cache_gib = 8.0
[agent]
max_tokens = 128
[store]
held_out_share = 0.3
[tuning]
steps = 6
prompts_per_step = 8
group_size = 8
max_tokens = 96
learning_rate = 0.0005
microbatch_tokens = 8192
parity_mean = 0.1
[tuning.gate]
enabled = true
num_prompts = 8
num_replies = 16
margin = 0.5
[[tenants]]
id = "acme"
key_hashes = ["{key_hash}"]
[tenants.languages.en]
[tenants.languages.de]
[tenants.languages.fr]
[tenants.languages.pl]
"""


async def measure(node: NodeProcess, rows: list[tuple[str, Any]], steps: int) -> None:
    """Fill the table."""
    async with httpx.AsyncClient(base_url=node.url, timeout=120.0) as http:
        replies = await asyncio.gather(
            *(
                ask(http, node, language=language, instructions=f"Write two sentences about {thing}.", max_tokens=64)
                for language in ("en", "de", "fr", "pl")
                for thing in (
                    "tea",
                    "a lamp",
                    "rain",
                    "bread",
                    "a train",
                    "the sea",
                    "a chair",
                    "snow",
                    "a clock",
                    "wool",
                )
            )
        )
        rows.append(("requests served before tuning", len([r for r in replies if r.status_code == 200])))
        async with Traffic(http, node, num_clients=8) as alone:
            await asyncio.sleep(5.0)
        rows.append(("p50 / max latency of 16-token replies, 8 clients, ms", _latency(alone)))
        before = await greedy(http, node)
        started = time.perf_counter()
        async with Traffic(http, node, num_clients=8) as traffic:
            status = await ended_run(http, node, await start_run(http, node, steps=steps, seed=0))
            await asyncio.sleep(1.0)
        rows += [
            ("run", f"{status['state']} {status['reason'] or ''}"),
            ("run duration, s", round(time.perf_counter() - started, 1)),
            ("same latency during the run, ms", _latency(traffic)),
            ("requests during the run, failed", (len(traffic.statuses), sum(s != 200 for s in traffic.statuses))),
            ("versions served", sorted(set(traffic.versions))),
        ]
        for step in status["steps"]:
            rows.append((f"step {step['step']}", _step(step)))
        evaluation = status["evaluation"] or {}
        rows.append(
            ("held-out reward, candidate / baseline", (evaluation.get("reward"), evaluation.get("baseline_reward")))
        )
        policies = (await http.get("/admin/policies", headers=node.admin_headers)).json()
        rows.append(("policies", [(p["version"], p["parity"]) for p in policies["policies"]]))
        after = await greedy(http, node)
        await http.post("/admin/policies/0/activate", headers=node.admin_headers)
        restored = await greedy(http, node)
        rows.append(("version after run / after rollback", (after[0], restored[0])))
        rows.append(("rollback restores greedy logprobs exactly", restored == before))


def _latency(traffic: Traffic) -> tuple[float, float]:
    values = sorted(duration_s * 1000 for duration_s in traffic.durations_s)
    return round(statistics.median(values), 1), round(values[-1], 1)


def _step(step: dict[str, Any]) -> dict[str, Any]:
    names = ("num_tokens", "reward_mean", "rollout_s", "score_s", "train_s", "install_s", "mismatch_mean", "grad_norm")
    return {name: round(step[name], 4) for name in names}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6)
    arguments = parser.parse_args()
    rows: list[tuple[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        node = NodeProcess(Path(folder), arguments.model.resolve(), new_key("acme"), config=CONFIG)
        try:
            rows.append(("start until ready, s", round(node.start(), 1)))
            rows.append(("engine", [line for line in node.log().splitlines() if "engine_started" in line]))
            asyncio.run(measure(node, rows, arguments.steps))
            status, left = node.stop()
            rows.append(("exit status, processes left", (status, left)))
        finally:
            node.kill()
            for name, value in rows:
                print(f"{name:55} {value}")


if __name__ == "__main__":
    main()
