"""An engine that keeps log-probabilities until a reply is done: vLLM's CPU engine.

The engine is started by another process: this file, run as a module, which writes what it found for the test to judge.
"""

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.completion import BASE_VERSION, Sampling
from agent.ports import GenerateRequest, Priority
from service.config import EngineConfig
from service.engine_environment import prepare
from tests.tiny_model import save_tiny_llama

pytestmark = pytest.mark.engine

NUM_REQUESTS = 10
CHILD_S = 180.0
"""Until vLLM's process is given up."""


def test_completions_have_what_vllm_would_have_sent(tmp_path: Path) -> None:
    """Ten requests at one time, of different lengths: every token with its own log-probability, to the last bit. One is
    heard as it comes, one ends at a stop string, which the front process sees."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.integration.test_sampled", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=CHILD_S,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-4000:]
    found: list[dict[str, Any]] = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert len(found) == NUM_REQUESTS
    assert max(len(case["got"]) for case in found) > 20
    for case in found:
        # What was sampled behind a stop string before the engine heard of it is no part of the reply.
        assert case["got"] == case["sent"][: len(case["got"])]
        assert len(case["got"]) == len(case["sent"]) or case["reason"] == "stop"
    assert [case["reason"] for case in found] == ["length"] * 9 + ["stop"]
    for case in found:
        assert all(value < 0 for _, value in case["got"])


async def _ask(folder: Path) -> list[dict[str, Any]]:
    """Per request the tokens with their log-probabilities, as the engine returned them and as vLLM would have."""
    from service.engine import VllmEngine  # reads the environment

    engine = await VllmEngine.launch(
        str(save_tiny_llama(folder / "model")),
        EngineConfig(max_num_seqs=4, kv_cache_gib=0.1, max_model_len=128, num_threads=1),
        num_adapters=1,
        adapter_rank=8,
        worker="tests.integration.keeping_worker.KeepingWorker",
    )
    try:
        requests = [
            GenerateRequest(
                f"req-{number}",
                (1, 5 + number, 7),
                Sampling(max_tokens=1 + 5 * number, temperature=1.0, seed=number),
                Priority.LIVE,
                cache_scope="acme",
            )
            for number in range(NUM_REQUESTS)
        ]
        requests[8] = replace(requests[8], listener=lambda delta: None)
        requests[9] = replace(requests[9], sampling=replace(requests[9].sampling, stop=("a", "e", "i", "o", "u", " ")))
        completions = await asyncio.gather(*(engine.sample(request, BASE_VERSION) for request in requests))
        return [
            {
                "got": list(zip(completion.token_ids, completion.logprobs, strict=True)),
                "sent": await engine.call("sent", request.request_id),
                "reason": completion.finish_reason.value,
            }
            for request, completion in zip(requests, completions, strict=True)
        ]
    finally:
        await engine.stop()


def main(folder: Path) -> None:
    """Start an engine, ask it, and write ``found.json``."""
    prepare(EngineConfig(num_threads=1))
    (folder / "found.json").write_text(json.dumps(asyncio.run(_ask(folder))), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
