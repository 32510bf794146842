"""Edits in, better replies out: what editors do to replies becomes pairs, a reward model, a policy, and other replies.

    briefs ─► replies ─► edits ─► pairs ─► reward model ─► GRPO ─► gate ─► publication ─► replies to held-out briefs

A node of its own, over its HTTP API alone. Editors share a taste that no part of the product knows: they put word
pieces rich in vowels in the place of others. Whether replies got better is told by that taste, which the policy meets
only through the edits, on briefs that neither the reward model nor the policy was trained on.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from service.secrets import new_key
from tests.integration.editors import (
    Answer,
    answers,
    exported_pairs,
    held_out_of,
    post_edits,
    preference_rate,
    stage,
    trained_model,
)
from tests.integration.judges import vowel_share
from tests.integration.node_process import NodeProcess
from tests.integration.test_node import client, ended_run, greedy, start_run
from tests.only_parts import only_in_toml
from tests.tiny_model import save_tiny_llama

pytestmark = pytest.mark.engine

NUM_BRIEFS = 120
EDITED_SHARE = 0.35
"""Of the word pieces that an editor could replace."""
LIKED = 0.5
"""Share of vowels from which on a word piece is left alone."""
NUM_FRESH = 3
"""Fresh replies to each held-out brief, of either policy."""
LEAST_RATE, LEAST_RISE = 0.8, 0.2
"""Of the held-out preference rate: what it has to reach, and by how much it has to rise."""

CONFIG = (
    """
[server]
port = 0

[engine]
model = "{model}"
dtype = "float32"
max_model_len = 256
max_num_seqs = 32
kv_cache_gib = 0.125

[store]
held_out_share = 0.35

[agent]
max_tokens = 16
temperature = 1.0
hold_s = 120.0

[rewards.weights]
"""
    + only_in_toml(repetition=0.25, taste=1.0)
    + """
[rewards]
models = {{ taste = {{ max_tokens = 256, batch_tokens = 1024, ranking_timeout_s = 30.0 }} }}

[rewards.training]
min_pairs = 50
min_held_out = 20
epochs = 3
learning_rate = 3e-3
rank = 8
num_threads = 1

# The test's own requests would hold tuning back on few cores.
[slo]
ratio = 50.0

[tuning]
steps = 8
prompts_per_step = 4
group_size = 8
max_tokens = 12
learning_rate = 0.01

[tuning.adapter]
rank = 8
alpha = 32.0

[tuning.gate]
num_prompts = 16
num_replies = 32
require_improvement = true

[[tenants]]
id = "acme"
key_hashes = ["{key_hash}"]
# The model writes no language at all: every one may stand.
[tenants.languages.en]
foreign_share = 1.0
"""
)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    folder: Path = tmp_path_factory.mktemp("edited")
    process = NodeProcess(folder, save_tiny_llama(folder / "model", readable=True), new_key("acme"), config=CONFIG)
    with stage("start"):
        process.start()
    yield process
    process.kill()


class VowelEditor:
    """Rewrites replies by the planted taste; the same seed rewrites alike."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, seed: int) -> None:
        self._tokenizer = tokenizer
        self._chance = random.Random(seed)
        pieces = [str(tokenizer.decode([token])) for token in range(len(tokenizer))]
        self._liked = [piece for piece in pieces if piece.strip().isalpha() and vowel_share(piece) >= LIKED]

    def edit(self, text: str) -> str:
        """The text with EDITED_SHARE of its pieces replaced that have few vowels."""
        pieces = [str(self._tokenizer.decode([token])) for token in self._tokenizer(text)["input_ids"]]
        return "".join(self._kept(piece) for piece in pieces)

    def _kept(self, piece: str) -> str:
        if vowel_share(piece) >= LIKED or self._chance.random() > EDITED_SHARE:
            return piece
        return self._chance.choice(self._liked)


def brief(number: int) -> dict[str, object]:
    return {
        "kind": "create",
        "language": "en",
        "instructions": f"Write about lamp number {number}.",
        "max_tokens": 12,
    }


async def taste_of(http: httpx.AsyncClient, node: NodeProcess, reply: Answer) -> float | None:
    """What the reward model says of a reply, as an operator sees it; None while there is no model."""
    shown = (await http.get(f"/admin/requests/{reply.request_id}", headers=node.admin_headers)).json()
    parts = {part["name"]: part for part in shown["reward"]["parts"]}
    assert parts["taste"]["weight"] == 1.0
    value: float | None = parts["taste"]["value"]
    return value


async def test_edits_raise_the_held_out_preference_rate(node: NodeProcess) -> None:
    """From edits alone the node learns what editors like: replies to held-out briefs are preferred to those that were
    served first about half of the time by the untuned policy, and far more often by the published one."""
    editor = VowelEditor(AutoTokenizer.from_pretrained(node.folder / "model"), seed=0)
    async with client(node) as http:
        with stage("briefs and edits"):
            replies = await answers(http, node, [brief(number) for number in range(NUM_BRIEFS)])
            await post_edits(http, node, replies, editor)
            pairs = await exported_pairs(http, node, "en")
        served = held_out_of(pairs, replies)
        # A reply may come out of its edit as it was, and one or the other gibberish may look like a question.
        assert len(pairs) >= 0.9 * NUM_BRIEFS
        assert {pair["source"] for pair in pairs} == {"edit"}
        assert await taste_of(http, node, served[0]) is None
        before = await greedy(http, node)
        with stage("reward model"):
            training = await trained_model(http, node, "en")
        assert training["state"] == "accepted", training["reason"]
        taste = await taste_of(http, node, served[0])
        assert taste is not None
        assert -1.0 < taste < 1.0
        assert await greedy(http, node) == before  # the reward model stands on the served weights, and changes none
        fresh = [reply.brief for reply in served] * NUM_FRESH
        with stage("held-out replies before"):
            untuned = await answers(http, node, fresh)
        with stage("tuning, gate, publication"):
            run = await ended_run(http, node, await start_run(http, node, seed=0))
        assert run["state"] == "succeeded", run["reason"]
        with stage("held-out replies after"):
            tuned = await answers(http, node, fresh)
    assert {reply.policy_version for reply in untuned} == {0}
    assert [{reply.policy_version for reply in tuned}] == [set(run["published"])]
    report = run["evaluation"]["report"]
    assert report["improvement"]["shown"]
    rates = [preference_rate(fresh, served, vowel_share) for fresh in (untuned, tuned)]
    print(f"reward model: {training['reason']}; gate: {report['verdict']}")  # noqa: T201
    print(f"preferred on {len(served)} held-out briefs: {rates[0]:.2f} before, {rates[1]:.2f} after")  # noqa: T201
    assert rates[1] >= LEAST_RATE
    assert rates[1] - rates[0] >= LEAST_RISE
