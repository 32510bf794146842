"""Method full: no engine step computes with weights of two versions, however many are published under load.

The engine is started by another process: this file, run as a module, which writes what it found for the tests to judge.
"""

import asyncio
import itertools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.completion import Completion, FinishReason, Sampling
from agent.ports import GenerateRequest
from service.config import EngineConfig
from service.engine_environment import prepare
from tests.tiny_model import save_tiny_llama
from tests.trainer.samples import SETTINGS

if TYPE_CHECKING:
    from service.engine import VllmEngine

pytestmark = pytest.mark.engine

NUM_CLIENTS = 6
REPLY_TOKENS = 96
NUM_VERSIONS = 40
"""Published under load; the odd ones copied from kept weights, the even ones rounded from the learner's masters."""
PAUSE_S = 0.05
NUM_COMMANDS = 10
SETTINGS_FULL = replace(SETTINGS, method="full")
CHILD_S = 240.0
"""Until vLLM's process is given up; 25 s on two idle cores, most of them its start."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``main`` found, as JSON reads it back."""
    folder = tmp_path_factory.mktemp("tearing")
    process = subprocess.run(
        [sys.executable, "-m", "tests.integration.test_tearing", str(folder)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=CHILD_S,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-4000:]
    result: dict[str, Any] = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    return result


def test_no_engine_step_sees_two_versions(found: dict[str, Any]) -> None:
    """In every step each weight of the model was looked at as it was used, and all of them were of one version."""
    assert len(found["steps"]) >= 100
    assert {num_weights for _, num_weights in found["steps"]} == {found["num_weights"]}
    assert [versions for versions, _ in found["steps"] if len(versions) != 1] == []


def test_versions_follow_one_another_while_requests_run(found: dict[str, Any]) -> None:
    """Steps never go back to an older version, and meet at least half of those that were published."""
    seen = [version for versions, _ in found["steps"] for version in versions]
    assert seen == sorted(seen)
    assert set(seen) <= set(range(1, NUM_VERSIONS + 2))
    assert len(set(seen)) >= NUM_VERSIONS // 2
    assert found["num_in_flight"] == [NUM_CLIENTS] * NUM_VERSIONS


def test_no_reply_suffers(found: dict[str, Any]) -> None:
    """Every request that ran meanwhile got all of its tokens, or ended with the stop token,
    and finite logprobs."""
    assert len(found["replies"]) >= NUM_CLIENTS
    for reply in found["replies"]:
        assert reply["finite"]
        assert reply["num_tokens"] == REPLY_TOKENS or reply["stopped"]


def test_a_write_from_another_thread_is_noticed(found: dict[str, Any]) -> None:
    """The proof can fail: weights written beside the engine, tensor by tensor, give steps of two versions."""
    assert any(len(versions) > 1 for versions, _ in found["torn_steps"])


def test_the_learner_tells_of_its_answers(found: dict[str, Any]) -> None:
    """Without its word each of the commands would be asked after when half a second has passed."""
    assert found["commands_s"] < NUM_COMMANDS * 0.5 / 2


async def _load(folder: Path) -> dict[str, Any]:
    from service.engine import VllmEngine
    from service.engine_trainer import EngineTrainer

    config = EngineConfig(dtype="float32", max_model_len=256, max_num_seqs=8, kv_cache_gib=0.1, num_threads=1)
    engine = await VllmEngine.launch(
        str(save_tiny_llama(folder / "model")),
        config,
        num_adapters=0,
        adapter_rank=8,
        worker="tests.integration.tagged_worker.TaggedWorker",
    )
    try:
        trainer = EngineTrainer(engine)
        await trainer.begin(SETTINGS_FULL, None)
        began_s = time.monotonic()
        for _ in range(NUM_COMMANDS):
            await trainer.forget(99)
        found = {"commands_s": time.monotonic() - began_s} | await _published_under_load(engine)
        return found | {"torn_steps": await _torn(engine)}
    finally:
        await engine.stop()


async def _published_under_load(engine: "VllmEngine") -> dict[str, Any]:
    await _publish(engine, 1)
    await engine.call("steps")
    num_in_flight: list[int] = []
    async with _clients(engine) as (replies, in_flight):
        for version in range(2, NUM_VERSIONS + 2):
            await asyncio.sleep(PAUSE_S)
            num_in_flight.append(len(in_flight))
            await _publish(engine, version)
        await asyncio.sleep(PAUSE_S)
    return {
        "steps": await engine.call("steps"),
        "num_weights": await engine.call("num_weights"),
        "num_in_flight": num_in_flight,
        "replies": [_summary(reply) for reply in replies],
    }


async def _torn(engine: "VllmEngine") -> Any:
    async with _clients(engine):
        await asyncio.sleep(PAUSE_S)
        await engine.call("steps")
        await engine.call("tear", NUM_VERSIONS + 2)
        await asyncio.sleep(1.0)
        return await engine.call("steps")


async def _publish(engine: "VllmEngine", version: int) -> None:
    kept = version % 2 == 1
    await engine.call("keep_tagged" if kept else "step_tagged", version)
    await engine.call("coloq_restore_live" if kept else "coloq_publish_live", version)


@asynccontextmanager
async def _clients(engine: "VllmEngine") -> AsyncIterator[tuple[list[Completion], set[str]]]:
    """Clients that ask without pause; yields what they have been answered, and the requests in flight."""
    replies: list[Completion] = []
    in_flight: set[str] = set()
    stop = asyncio.Event()

    async def client(number: int) -> None:
        for turn in itertools.count():
            if stop.is_set():
                return
            name = f"client-{number}-{turn}"
            in_flight.add(name)
            sampling = Sampling(max_tokens=REPLY_TOKENS, seed=turn)
            replies.append(await engine.sample(GenerateRequest(name, (5 + number, 6, 7 + turn % 50), sampling), 0))
            in_flight.discard(name)

    tasks = [asyncio.create_task(client(number)) for number in range(NUM_CLIENTS)]
    try:
        yield replies, in_flight
    finally:
        stop.set()
        await asyncio.gather(*tasks)


def _summary(reply: Completion) -> dict[str, Any]:
    return {
        "num_tokens": len(reply.token_ids),
        "stopped": reply.finish_reason is FinishReason.STOP,
        "finite": all(map(math.isfinite, reply.logprobs)),
    }


def main(folder: Path) -> None:
    """Start an engine, publish under load, and write ``found.json``."""
    prepare(EngineConfig(num_threads=1))
    (folder / "found.json").write_text(json.dumps(asyncio.run(_load(folder))), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
