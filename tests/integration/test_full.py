"""Method full over HTTP on a real engine: steps that go live, publication, the written model, rollback, restart.

The tests run in order on one node: each builds on the policies and the journal that those before it left.
"""

import asyncio
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM

from service.secrets import new_key
from tests.integration.node_process import CONFIG, NodeProcess
from tests.integration.test_node import LANGUAGES, TASKS, Traffic, ask, client, ended_run, greedy, start_run
from tests.tiny_model import save_tiny_llama

pytestmark = pytest.mark.engine

_FULL = """
[tuning]
method = "full"
steps = 5
"""
FULL_CONFIG = CONFIG.replace("\n[tuning]\nsteps = 8\n", _FULL).replace("learning_rate = 0.01", "learning_rate = 0.002")
REWARD_MARGIN = 0.3
"""By how much the held-out share of vowels must rise within the run's 5 steps, seed 0."""


@pytest.fixture(scope="module")
def full_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node whose method is full; each test leaves it serving."""
    folder: Path = tmp_path_factory.mktemp("full")
    process = NodeProcess(folder, save_tiny_llama(folder / "model"), new_key("acme"), config=FULL_CONFIG)
    process.start()
    yield process
    process.kill()


def _live(node: NodeProcess) -> list[int]:
    """Versions that a run made live, in order, by the node's log."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", node.log())
    return [int(version) for version in re.findall(r"weights_published.*?\bversion=(\d+)", plain)]


def _folder(node: NodeProcess, version: int) -> Path:
    return node.folder / ".coloq" / "policies" / f"v{version}"


def _manifest(node: NodeProcess, version: int) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((_folder(node, version) / "manifest.json").read_text(encoding="utf-8"))
    return manifest


async def _activate(http: httpx.AsyncClient, node: NodeProcess, version: int) -> None:
    response = await http.post(f"/admin/policies/{version}/activate", headers=node.admin_headers)
    assert response.status_code == 200, response.text


async def test_every_step_goes_live_and_the_last_is_published(full_node: NodeProcess) -> None:
    """Five steps of the model's own weights raise the held-out share of vowels; users get every step's version as it is
    made and no request fails; rolled back to version 0, and forward again, tokens and logprobs are the same."""
    async with client(full_node) as http:
        for language in LANGUAGES:
            await asyncio.gather(*(ask(http, full_node, language=language, instructions=task) for task in TASKS))
        before = await greedy(http, full_node)
        assert before[0] == 0
        async with Traffic(http, full_node, num_clients=3) as traffic:
            status = await ended_run(http, full_node, await start_run(http, full_node, seed=0))
            assert status["state"] == "succeeded", status["reason"]
        versions = [step["version"] for step in status["steps"]]
        assert len(versions) == 5
        assert _live(full_node) == versions
        assert status["published"] == versions[-1:]
        assert set(traffic.statuses) == {200}
        assert set(traffic.versions) <= {0, *versions}
        assert len(set(traffic.versions)) >= 3
        evaluation = status["evaluation"]
        assert evaluation["baseline_version"] == 0
        assert evaluation["reward"] - evaluation["baseline_reward"] >= REWARD_MARGIN

        after = await greedy(http, full_node)
        assert after[0] == versions[-1]
        assert after[1] != before[1]
        await _activate(http, full_node, 0)
        assert await greedy(http, full_node) == before
        await _activate(http, full_node, versions[-1])
        assert await greedy(http, full_node) == after


async def test_a_published_policy_is_a_model_for_transformers(full_node: NodeProcess) -> None:
    """Its folder loads as it is; Hugging Face's own forward pass finds the tokens that the node served the
    likeliest; the manifest says that it is a whole model."""
    async with client(full_node) as http:
        response = await ask(http, full_node, instructions="Write about the sea.", temperature=0.0)
        episode = await full_node.episode(response.json()["request_id"])
    completion = episode.completions[0]
    version = completion.versions.last
    manifest = _manifest(full_node, version)
    assert (manifest["method"], manifest["version"], manifest["parent"]) == ("full", version, 0)
    model = AutoModelForCausalLM.from_pretrained(_folder(full_node, version), dtype=torch.float32)
    ids = torch.tensor([[*completion.prompt_token_ids, *completion.token_ids]])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, len(completion.prompt_token_ids) - 1 : -1]
    assert logits.argmax(dim=1).tolist() == list(completion.token_ids)


async def test_a_stopped_run_leaves_no_trace(full_node: NodeProcess) -> None:
    """Its steps were live; what was not published is rolled back, here to the base model, to the last bit."""
    async with client(full_node) as http:
        await _activate(http, full_node, 0)
        before = await greedy(http, full_node)
        run_id = await start_run(http, full_node, steps=100, gate=False, learning_rate=1e-4, seed=5)
        run = f"/admin/tuning/runs/{run_id}"
        while len((await http.get(run, headers=full_node.admin_headers)).json()["steps"]) < 2:
            await asyncio.sleep(0.05)
        assert (await ask(http, full_node)).json()["policy_version"] > 0
        await http.post(f"{run}/stop", headers=full_node.admin_headers)
        status = await ended_run(http, full_node, run_id)
        assert (status["state"], status["published"]) == ("stopped", [])
        assert await greedy(http, full_node) == before


async def test_each_policy_builds_on_the_one_before(full_node: NodeProcess) -> None:
    """A run that publishes each of two steps, then one that begins with the first of them again: parents are what was
    live at the time, and every policy can be gone back to exactly."""
    async with client(full_node) as http:
        small = {"publish_every": 1, "gate": False, "learning_rate": 1e-4, "seed": 6}
        status = await ended_run(http, full_node, await start_run(http, full_node, steps=2, **small))
        assert status["state"] == "succeeded", status["reason"]
        first, second = status["published"]
        newest = await greedy(http, full_node)
        await _activate(http, full_node, first)
        older = await greedy(http, full_node)
        status = await ended_run(http, full_node, await start_run(http, full_node, steps=1, **small))
        assert status["state"] == "succeeded", status["reason"]
        (third,) = status["published"]
        assert [_manifest(full_node, version)["parent"] for version in (first, second, third)] == [0, first, first]
        assert (newest[0], older[0]) == (second, first)
        for version, reply in ((second, newest), (first, older)):
            await _activate(http, full_node, version)
            assert await greedy(http, full_node) == reply


async def test_a_restarted_node_serves_the_published_policy(full_node: NodeProcess) -> None:
    """The engine loads the base model; before the first request the policy's weights are read over it."""
    async with client(full_node) as http:
        before = await greedy(http, full_node)
    assert before[0] > 0
    assert full_node.stop(signal.SIGTERM) == (0, [])
    full_node.start()
    async with client(full_node) as http:
        assert await greedy(http, full_node) == before
