"""Kill -9 of the engine and of the whole node in the middle of a run on a real engine: the run goes on, and comes to
what it comes to on a node that nobody kills.

Two nodes begin with the same journal and the same run; the tests run in order.
"""

import asyncio
import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from service.cli_tuning import tune_app
from service.http.tuning_schema import StepView
from service.report.series import series_of
from service.secrets import new_key
from tests.integration.node_process import CONFIG, NodeProcess
from tests.integration.test_node import LANGUAGES, TASKS, ask, client, ended_run, start_run
from tests.tiny_model import save_tiny_llama

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

RUN: dict[str, Any] = {"steps": 6, "gate": False, "seed": 3, "prompts_per_step": 3, "group_size": 4, "publish_every": 4}
AUTO_CONFIG = CONFIG.replace("\n[tuning]\n", '\n[tuning]\nresume = "auto"\n')


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NodeProcess, NodeProcess]]:
    """A node that serves, and one that is not started with a copy of its journal, which resumes by itself."""
    root: Path = tmp_path_factory.mktemp("resume")
    model, key = save_tiny_llama(root / "model"), new_key("acme")
    (root / "kept").mkdir()
    kept = NodeProcess(root / "kept", model, key)
    kept.start()
    asyncio.run(_fill(kept))
    # Nobody asks the node now, and what its store answered is in its append-only file.
    shutil.copytree(root / "kept", root / "killed")
    killed = NodeProcess(root / "killed", model, key, config=AUTO_CONFIG)
    killed.admin_key = kept.admin_key
    yield kept, killed
    kept.kill()
    killed.kill()


async def _fill(node: NodeProcess) -> None:
    async with client(node) as http:
        for task in TASKS:
            for language in LANGUAGES:
                (await ask(http, node, language=language, instructions=task, max_tokens=4)).raise_for_status()


async def _after(http: httpx.AsyncClient, node: NodeProcess, run_id: str, num_steps: int) -> None:
    """Return as soon as the run has taken so many steps."""
    while True:
        status = (await http.get(f"/admin/tuning/runs/{run_id}", headers=node.admin_headers)).json()
        assert status["state"] == "running", status
        if status["steps_done"] >= num_steps:
            return
        await asyncio.sleep(0.02)


def _figures(status: dict[str, Any]) -> dict[tuple[str, int], float]:
    """By name and step, without clocks and versions."""
    series = series_of([StepView.model_validate(step) for step in status["steps"]])
    return {
        (name, step): value
        for name, points in series.items()
        if name != "version" and not name.endswith("_s")
        for step, value in points
    }


async def _went_on(node: NodeProcess, run_id: str) -> dict[str, Any]:
    """The run's final status, from a node that resumes it by itself."""
    async with client(node) as http:
        while (status := await ended_run(http, node, run_id))["state"] == "interrupted":
            await asyncio.sleep(0.1)
    return status


@pytest.fixture(scope="module")
def uninterrupted(nodes: tuple[NodeProcess, NodeProcess]) -> dict[str, Any]:
    """The status of a run on the first node, which nobody kills."""

    async def run() -> dict[str, Any]:
        async with client(nodes[0]) as http:
            return await ended_run(http, nodes[0], await start_run(http, nodes[0], **RUN))

    return asyncio.run(run())


def test_the_report_of_a_run_on_a_node(
    nodes: tuple[NodeProcess, NodeProcess],
    uninterrupted: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The command line draws the run of a node that is there."""
    kept, _ = nodes
    monkeypatch.setenv("COLOQ_ADMIN_KEY", kept.admin_key)
    monkeypatch.setenv("COLOQ_URL", kept.url)
    listed = CliRunner().invoke(tune_app, ["status"]).stdout
    run_id = next(word for word in listed.split() if word.startswith("run_"))
    assert run_id == uninterrupted["id"]
    dumped = CliRunner().invoke(tune_app, ["report", run_id, "--json", "--out", str(tmp_path)])
    assert len(json.loads(dumped.stdout)["series"]["reward_mean"]) == RUN["steps"]
    assert (tmp_path / "report.html").exists()
    assert (tmp_path / "reward-by-language.png").exists()


async def test_a_run_goes_on_after_kill_9_of_the_node_and_of_the_engine(
    nodes: tuple[NodeProcess, NodeProcess], uninterrupted: dict[str, Any]
) -> None:
    """The node is killed after two steps, its next engine after four: the run has six steps in the end, two of which
    nobody trained twice, and is marked as resumed twice. The node that nobody killed reports the same figures."""
    kept, killed = nodes
    kept.stop()
    killed.start()
    async with client(killed) as http:
        run_id = await start_run(http, killed, **RUN)
        await _after(http, killed, run_id, 2)
    front, *below = killed.processes()
    front.send_signal(signal.SIGKILL)
    killed.wait(10)
    for process in below:
        process.wait(10)
    killed.start()
    async with client(killed) as http:
        await _after(http, killed, run_id, 4)
        killed.engine().kill()
    status = await _went_on(killed, run_id)
    assert (status["state"], status["steps_done"], len(status["published"])) == ("succeeded", 6, 2), status["reason"]
    assert [step >= least for step, least in zip(status["resumed_after"], (1, 3), strict=True)] == [True, True]
    killed.stop()
    # Which rollouts share an engine step depends on time, and with it the rounding of their logits.
    assert _figures(status) == pytest.approx(_figures(uninterrupted), rel=1e-4, abs=1e-5)
