"""What an engine computes in CUDA graphs, against transformers: steps of prompts, of decoding, and of both.

    requests in waves ─► tokens with log-probabilities ─► the same tokens through transformers ─► difference

For a machine with CUDA. The engine is started by another process: this file, run as a module, which writes what it
found for the test to judge.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from agent.completion import BASE_VERSION, Completion, Sampling
from agent.ports import GenerateRequest, Priority
from service.bench.tokenizer import train_tokenizer
from service.config import EngineConfig
from service.engine_environment import prepare

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="graphs of a CUDA device"),
]

NUM_HEADS, NUM_KV_HEADS = 6, 2
WAVES, PER_WAVE, PAUSE_S = 4, 48, 0.03
"""A wave's prompts come while the waves before it decode; such graphs were seen to fail in large batches alone."""
NUM_TOKENS = 24
CHILD_S = 300.0
CLOSE_NATS = 0.1
"""Rounding in bfloat16; attention over the wrong tokens is off by whole nats."""


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("cuda_graphs", ["full", "piecewise"])
def test_graphs_compute_the_model(tmp_path: Path, cuda_graphs: str, head_dim: int) -> None:
    """Both widths of heads for which FlashAttention chooses its tiles by other rules."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.integration.test_cuda_graphs", str(tmp_path), cuda_graphs, str(head_dim)],
        cwd=Path(__file__).parents[2],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=CHILD_S,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-4000:]
    gaps: list[float] = json.loads((tmp_path / "gaps.json").read_text(encoding="utf-8"))
    assert len(gaps) >= WAVES * PER_WAVE * NUM_TOKENS / 2  # an end token may end a reply
    assert all(gap == gap for gap in gaps)
    print(f"{cuda_graphs}, heads of {head_dim}: {sum(gaps) / len(gaps):.4f} nats")  # noqa: T201 - for the record
    assert sum(gaps) / len(gaps) < CLOSE_NATS


def _save_model(folder: Path, head_dim: int) -> Path:
    tokenizer = train_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=NUM_HEADS * head_dim,
        intermediate_size=2 * NUM_HEADS * head_dim,
        num_hidden_layers=4,
        num_attention_heads=NUM_HEADS,
        num_key_value_heads=NUM_KV_HEADS,
        max_position_embeddings=1024,
        initializer_range=0.08,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model: Any = LlamaForCausalLM(config)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


async def _sampled(model: Path, cuda_graphs: str) -> list[Completion]:
    from service.engine import VllmEngine  # reads the environment

    settings = {"cuda_graphs": cuda_graphs, "torch_compile": cuda_graphs == "piecewise"}
    config = EngineConfig.model_validate(
        {"dtype": "bfloat16", "max_num_seqs": 256, "kv_cache_gib": 2.0, "max_model_len": 512} | settings
    )
    engine = await VllmEngine.launch(str(model), config, num_adapters=1, adapter_rank=8)
    chance = random.Random(0)
    try:
        asked = []
        for wave in range(WAVES):
            for number in range(PER_WAVE):
                prompt = tuple(chance.randrange(10, 200) for _ in range(chance.randrange(3, 120)))
                request = GenerateRequest(
                    f"req-{wave}-{number}",
                    prompt,
                    Sampling(max_tokens=NUM_TOKENS, temperature=1.0, seed=number),
                    Priority.LIVE,
                    cache_scope="acme",
                )
                asked.append(asyncio.create_task(engine.sample(request, BASE_VERSION)))
            await asyncio.sleep(PAUSE_S)
        return await asyncio.gather(*asked)
    finally:
        await engine.stop()


def _gaps(model: Path, completions: list[Completion]) -> list[float]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    reference: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    reference.to(device).eval()
    gaps = []
    for completion in completions:
        ids = torch.tensor([[*completion.prompt_token_ids, *completion.token_ids]], device=device)
        with torch.no_grad():
            logs = torch.log_softmax(reference(ids).logits[0].float(), dim=-1)
        start = len(completion.prompt_token_ids)
        chosen = logs[range(start - 1, ids.shape[1] - 1), ids[0, start:]].tolist()
        gaps += [abs(ours - theirs) for ours, theirs in zip(completion.logprobs, chosen, strict=True)]
    return gaps


def main(folder: Path, cuda_graphs: str, head_dim: int) -> None:
    """Start an engine, ask it, compare, and write ``gaps.json``."""
    prepare(EngineConfig())
    model = _save_model(folder / "model", head_dim)
    completions = asyncio.run(_sampled(model, cuda_graphs))
    (folder / "gaps.json").write_text(json.dumps(_gaps(model, completions)), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
