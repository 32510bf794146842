"""What vLLM is asked for: an engine by a node's configuration, a reply by its sampling parameters, an adapter."""

from collections.abc import Sequence
from typing import Any

from vllm import SamplingParams
from vllm.config import AttentionConfig, StructuredOutputsConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.lora.request import LoRARequest
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

from agent.completion import BASE_VERSION, Sampling
from service.config import EngineConfig
from service.engine_footprint import (
    CPU_KV_CACHE_GIB,
    attention_splits,
    largest_step,
    step_tokens,
    whole_graph_sizes,
)

_IN_PROCESS_EXECUTOR = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
"""The worker lives in the engine process. Named by path: vLLM's CPU platform replaces the short name `uni` by a third
process, to set OMP's environment, which is set here before the process starts."""
_FREE_AT_START = 0.05
"""vLLM asks for this share of the device to be free when it starts; the memory plan is what decides."""


def engine_arguments(
    model: str,
    config: EngineConfig,
    *,
    num_adapters: int,
    adapter_rank: int,
    worker: str,
    target_modules: Sequence[str] = (),
    kv_cache_bytes: int | None = None,
) -> AsyncEngineArgs:
    """vLLM's arguments for a node's engine. What differs between platforms is here."""
    on_cpu = current_platform.is_cpu()
    return AsyncEngineArgs(
        model=model,
        dtype=config.dtype,
        seed=config.seed,
        max_model_len=config.max_model_len,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=_batched_tokens(config, on_cpu=on_cpu),
        # A prompt split over two engine steps makes vLLM rewind its request's seeded generator, which a CPU's cannot:
        # "CPU Generator does not use offset" ends the engine.
        enable_chunked_prefill=False if on_cpu else None,
        kv_cache_memory_bytes=kv_cache_bytes or int((config.kv_cache_gib or CPU_KV_CACHE_GIB) * 2**30),
        gpu_memory_utilization=_FREE_AT_START,
        enforce_eager=True if on_cpu else config.enforce_eager,
        **({} if on_cpu else _graph_arguments(config)),
        distributed_executor_backend=_IN_PROCESS_EXECUTOR if on_cpu else "uni",
        worker_cls=worker,
        use_tqdm_on_load=False,
        **_adapter_arguments(num_adapters, adapter_rank, target_modules),
        scheduling_policy="priority",
        logprobs_mode="processed_logprobs",
        # By itself vLLM chooses one for each schema when it checks it, but decodes all with the choice for the first
        # since its start: what a schema comes to would depend on who was there before.
        structured_outputs_config=StructuredOutputsConfig(backend="xgrammar"),
        disable_log_stats=True,  # of vLLM's own loggers; _SilentStats has it measure all the same
    )


def _adapter_arguments(num_adapters: int, adapter_rank: int, target_modules: Sequence[str]) -> dict[str, Any]:
    """Without slots vLLM runs its plain layers; so do layers that no adapter may change, the head among them."""
    if not num_adapters:
        return {}
    return {
        "enable_lora": True,
        "max_loras": num_adapters,
        "max_cpu_loras": num_adapters,
        "max_lora_rank": adapter_rank,
        "lora_target_modules": list(target_modules) or None,
    }


def _graph_arguments(config: EngineConfig) -> dict[str, Any]:
    """Steps of decoding alone are captured whole in either mode."""
    if config.enforce_eager:
        return {}
    asked: dict[str, Any] = {"mode": 3 if config.torch_compile else 0, "cudagraph_mode": "FULL_AND_PIECEWISE"}
    if config.cuda_graphs == "full":
        sizes = whole_graph_sizes(largest_step(config))
        asked |= {"cudagraph_mode": "FULL", "cudagraph_capture_sizes": list(sizes)}
    splits = AttentionConfig(flash_attn_max_num_splits_for_cuda_graph=attention_splits(config))
    return {"compilation_config": asked, "attention_config": splits}


def _batched_tokens(config: EngineConfig, *, on_cpu: bool) -> int | None:
    """Tokens per engine step. Where prompts are not split, the longest one must fit."""
    if not on_cpu:
        return step_tokens(config)
    if config.max_num_batched_tokens is None:
        return None
    return max(config.max_num_batched_tokens, config.max_model_len)


def sampling_params(sampling: Sampling, *, streams: bool = False) -> SamplingParams:
    """vLLM's sampling parameters; the sampled token's logprob is always asked for.

    Text is wanted once, at the end: vLLM would detokenise every step of every request in the front process, and the
    logprobs' tokens too. Stop strings need it, though, and so does who ``streams``; they alone pay for it.
    """
    schema = sampling.schema
    return SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k or -1,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        seed=sampling.seed,
        stop=list(sampling.stop),
        detokenize=streams or bool(sampling.stop),
        # Where tokens are told, of one likely token at the least: the sampled alone would stay in the engine process.
        logprobs=0 if sampling.top_logprobs is None else max(sampling.top_logprobs, 1),
        structured_outputs=StructuredOutputsParams(json=schema) if schema is not None else None,
        output_kind=RequestOutputKind.DELTA if streams else RequestOutputKind.FINAL_ONLY,
    )


def adapter_request(version: int) -> LoRARequest | None:
    """The adapter of a version; None for the base model. Installed before it is used, never loaded from the path."""
    if version == BASE_VERSION:
        return None
    return LoRARequest(lora_name=f"policy-v{version}", lora_int_id=version, lora_path=f"policy-v{version}")
