"""An engine that keeps log-probabilities until they are asked for, as on a GPU: vLLM's CPU engine, told to."""

import asyncio
from pathlib import Path

import pytest

from agent.completion import BASE_VERSION, Sampling
from agent.ports import GenerateRequest, Priority
from service.config import EngineConfig
from service.engine_environment import prepare
from tests.tiny_model import save_tiny_llama

pytestmark = [pytest.mark.engine, pytest.mark.asyncio]
START_S = 120.0


@pytest.mark.timeout(START_S + 60)
async def test_completions_have_what_vllm_would_have_sent(tmp_path: Path) -> None:
    """Eight requests at one time, of different lengths: every token with its own log-probability, to the last bit."""
    config = EngineConfig(max_num_seqs=4, kv_cache_gib=0.1, max_model_len=128, num_threads=1)
    prepare(config)
    from service.engine import VllmEngine  # reads the environment

    engine = await VllmEngine.launch(
        str(save_tiny_llama(tmp_path / "model")),
        config,
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
            for number in range(8)
        ]
        completions = await asyncio.gather(*(engine.sample(request, BASE_VERSION) for request in requests))
        for request, completion in zip(requests, completions, strict=True):
            sent = [tuple(pair) for pair in await engine.call("sent", request.request_id)]
            assert sent == list(zip(completion.token_ids, completion.logprobs, strict=True))
            assert all(value < 0 for value in completion.logprobs)
    finally:
        await engine.stop()
