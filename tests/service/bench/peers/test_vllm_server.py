"""Bare vLLM as a peer: the arguments that it shares with a node's engine, and a real server."""

import dataclasses
import math
from pathlib import Path

import httpx
import pytest

from service.bench.peers.failure import PeerFailed
from service.bench.peers.vllm_server import free_port, lora_arguments, serve_arguments, serve_vllm, vllm_bench_serve
from service.config import EngineConfig
from tests.tiny_model import save_tiny_llama

SMALL = EngineConfig(model="tiny", max_model_len=128, max_num_seqs=4, kv_cache_gib=0.05, num_threads=1, dtype="float32")


def flag(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(name) + 1]


def test_the_server_gets_the_nodes_bounds() -> None:
    """Context, sequences, type, seed and the KV cache's bytes are the node's: 0.05 GiB are 53,687,091 bytes."""
    arguments = serve_arguments(Path("tiny"), SMALL, port=1234, memory_fraction=0.9)
    assert arguments[:2] == ["serve", "tiny"]
    assert flag(arguments, "--max-model-len") == "128"
    assert flag(arguments, "--max-num-seqs") == "4"
    assert flag(arguments, "--dtype") == "float32"
    assert flag(arguments, "--kv-cache-memory-bytes") == "53687091"
    assert flag(arguments, "--port") == "1234"
    assert "--enable-lora" not in arguments
    assert "--worker-cls" not in arguments


def test_a_cpu_server_has_the_nodes_default_cache() -> None:
    """Half a GiB, 536,870,912 bytes, where the configuration names none."""
    unset = SMALL.model_copy(update={"kv_cache_gib": None})
    assert (
        flag(serve_arguments(Path("tiny"), unset, port=1, memory_fraction=0.9), "--kv-cache-memory-bytes")
        == "536870912"
    )


def test_adapter_slots_are_the_nodes() -> None:
    """As many on the GPU as in host memory, of one rank."""
    arguments = lora_arguments(7, 16)
    assert arguments == ["--enable-lora", "--max-loras", "7", "--max-cpu-loras", "7", "--max-lora-rank", "16"]


def test_a_free_port_can_be_listened_on() -> None:
    """Two calls may give the same port; each is above the privileged ones."""
    assert free_port() >= 1024


async def test_a_server_that_ends_says_why(tmp_path: Path) -> None:
    """A folder without a model ends vLLM; the error has the end of its log."""
    with pytest.raises(PeerFailed, match="vLLM ended with status 1") as failure:
        async with serve_vllm(tmp_path, SMALL, timeout_s=120):
            pass
    assert "ensure the presence of a 'config.json'" in str(failure.value)


@pytest.mark.engine
async def test_a_node_and_bare_vllm_run_with_the_same_arguments(tmp_path: Path) -> None:
    """What service.engine.engine_arguments sets the flags set too, save Worker, executor and a progress bar."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    from service.engine_arguments import engine_arguments

    model = save_tiny_llama(tmp_path / "tiny")
    parser = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser())
    flags = [*serve_arguments(model, SMALL, port=1, memory_fraction=0.9), *lora_arguments(7, 16)]
    known, _ = parser.parse_known_args(["--model", str(model), *flags[2:]])
    bare = AsyncEngineArgs.from_cli_args(known)
    node = engine_arguments(str(model), SMALL, num_adapters=7, adapter_rank=16, worker="Worker")
    unset = AsyncEngineArgs(model=str(model))
    set_by_node = {
        field.name
        for field in dataclasses.fields(AsyncEngineArgs)
        if getattr(node, field.name) != getattr(unset, field.name)
    }
    differing = {name for name in set_by_node if getattr(bare, name) != getattr(node, name)}
    assert {"kv_cache_memory_bytes", "max_loras", "scheduling_policy", "enforce_eager"} <= set_by_node
    assert differing == {"worker_cls", "distributed_executor_backend", "use_tqdm_on_load"}


@pytest.mark.engine
async def test_bare_vllm_answers_and_its_own_client_measures_it(tmp_path: Path) -> None:
    """Replies have exactly the tokens that were asked for, and none fails: 6 requests of 8 tokens are 48 tokens."""
    model = save_tiny_llama(tmp_path / "tiny")
    async with serve_vllm(model, SMALL, timeout_s=240) as url:
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
            body = {"model": str(model), "prompt": "All human beings", "max_tokens": 5, "ignore_eos": True}
            reply = (await client.post("/v1/completions", json=body)).json()
            assert reply["usage"]["completion_tokens"] == 5
        result = await vllm_bench_serve(url, model, math.inf, 6, 16, 8, timeout_s=240)
    assert (result["completed"], result["failed"]) == (6, 0)
    assert result["total_output_tokens"] == 48
    assert isinstance(result["p99_ttft_ms"], float)
    async with httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"{url}/health")
