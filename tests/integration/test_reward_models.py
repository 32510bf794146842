"""Reward models on a real engine: the served model as their backbone, asked by ranking and by tuning."""

import asyncio
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from rewards.models.manifest import set_active_version
from service.secrets import new_key
from tests.integration.node_process import CONFIG, NodeProcess
from tests.integration.test_node import TASKS, ask, client, ended_run, start_run
from tests.only_parts import only_in_toml
from tests.tiny_model import save_tiny_llama
from tests.tiny_reward import save_tiny_adapter

pytestmark = pytest.mark.engine

REWARDS = f"""
[rewards.models.taste]
max_tokens = 512
batch_tokens = 1024
ranking_timeout_s = 30.0

[rewards.weights]
{only_in_toml(repetition=0.5, taste=1.0)}"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node whose German has a reward model on the served weights, and whose other languages have none."""
    folder: Path = tmp_path_factory.mktemp("judged")
    model = save_tiny_llama(folder / "model")
    root = folder / ".coloq" / "rewards"
    save_tiny_adapter(root, "de", model)
    set_active_version(root, "de", 1)
    before, _, rest = CONFIG.partition("[rewards]\n")
    config = f"{before}{REWARDS}\n[slo]{rest.partition('[slo]')[2]}"
    process = NodeProcess(folder, model, new_key("acme"), config=config)
    process.start()
    yield process
    process.kill()


async def test_the_served_models_weights_judge_ranking_and_tuning_again_after_a_crash(node: NodeProcess) -> None:
    """German has the part, Polish has not; the backbone is the engine's own but for a head of 128 numbers; a new engine
    process loads the model again."""
    run = {"steps": 1, "gate": False, "seed": 0}
    async with client(node) as http:
        for language in ("de", "pl"):
            await asyncio.gather(*(ask(http, node, language=language, instructions=task) for task in TASKS))
        ranked = await ask(http, node, language="de", best_of=3)
        assert ranked.status_code == 200
        assert "ranked_without_reward_model" not in node.log()
        opened = re.sub(r"\x1b\[[\d;]*m", "", node.log()).partition("reward_backbone_opened")[2].partition("\n")[0]
        assert "shares_weights=True" in opened
        assert f"size_bytes={128 * 4}" in opened
        german = await ended_run(http, node, await start_run(http, node, languages=["de"], **run))
        polish = await ended_run(http, node, await start_run(http, node, languages=["pl"], **run))
        assert [german["state"], polish["state"]] == ["succeeded"] * 2
        assert -1.0 <= german["steps"][0]["parts"]["taste"] <= 1.0
        assert "taste" not in polish["steps"][0]["parts"]
        node.engine().send_signal(signal.SIGKILL)
        assert (await ask(http, node, language="de")).status_code == 200
        again = await ended_run(http, node, await start_run(http, node, languages=["de"], **run))
        assert again["state"] == "succeeded"
        assert "taste" in again["steps"][0]["parts"]
