"""The changes made to vLLM's own code in the engine process.

    CPU   weights stay plain               GPU   graphs are captured at the engine's stream priority
          LoRA is applied per adapter            LoRA's layout is made on the host
                                                 mixed steps' graphs get the query length of their capture
    both  tokens that nobody reads one by one stay in the engine process until the reply is done

Each replaces one function of vLLM's, and must be made before the model is loaded.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from vllm.model_executor.layers import utils as layer_utils

from trainer.cpu_lora import SlotTokens, add_lora_linear, by_slot
from trainer.held_outputs import HeldOutputs, RequestOutput
from trainer.lora_layout import lora_layout, token_slots, write_layout

ENGINE_PRIORITY = -3
"""Stream priority; CUDA knows 0 (the learner's) to -3 on current GPUs and takes the nearest it has."""
_MORE_THAN_LINEAR = ("embed_tokens", "lm_head")
"""Modules whose adapters vLLM applies by rules of their own."""


def keep_plain_weights() -> None:
    """Make vLLM's CPU build keep each layer's weight, which it would pack away and delete.

    The packed copy would not be the tensor that the training model views. Call before the model is loaded.
    """

    def plain_gemm(layer: nn.Module, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear  # type: ignore[assignment]  # vLLM keeps a function there

    layer_utils.dispatch_cpu_unquantized_gemm = plain_gemm


def group_lora_by_adapter() -> None:
    """Give vLLM's CPU build trainer.cpu_lora's operator, which is right for batches of mixed adapters."""
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    update = PunicaWrapperCPU.update_metadata
    tokens: WeakKeyDictionary[Any, list[SlotTokens]] = WeakKeyDictionary()

    def updated(wrapper: Any, *args: Any, **kwargs: Any) -> None:
        update(wrapper, *args, **kwargs)
        tokens[wrapper] = by_slot(wrapper.token_lora_indices)

    def grouped(
        wrapper: Any,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: tuple[Tensor, ...],
        lora_b_stacked: tuple[Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **_: object,
    ) -> None:
        add_lora_linear(
            y.view(-1, y.shape[-1]),
            x.view(-1, x.shape[-1]),
            lora_a_stacked,
            lora_b_stacked,
            scale=scale,
            slice_sizes=output_slices,
            tokens=tokens.get(wrapper, []),
        )

    PunicaWrapperCPU.update_metadata = updated
    PunicaWrapperCPU.add_lora_linear = grouped


def capture_at_engine_priority() -> None:
    """Make vLLM capture its CUDA graphs on a stream of the engine's priority.

    A captured kernel keeps the priority of the stream that it was captured on, whatever stream the graph is replayed
    on. vLLM captures on a stream of its own, of priority 0: on every graph the priority of the engine's stream would be
    lost.
    """
    from vllm.v1.worker import gpu_model_runner
    from vllm.v1.worker.gpu import cudagraph_utils

    original = cudagraph_utils.graph_capture

    @contextmanager
    def at_engine_priority(device: torch.device) -> Generator[Any]:
        with original(device) as context:
            stream = torch.cuda.Stream(device, priority=ENGINE_PRIORITY)
            stream.wait_stream(context.stream)
            with torch.cuda.stream(stream):
                yield context
            context.stream.wait_stream(stream)

    cudagraph_utils.graph_capture = at_engine_priority
    gpu_model_runner.graph_capture = at_engine_priority


def keep_captured_query_length() -> None:
    """Make vLLM replay a whole graph of a mixed step with the longest query that it was captured for.

    FlashAttention 3 chooses its tiles by the longest query, once when a graph is captured and once for the metadata of
    each replay. vLLM captures for a query as long as the step and tells a replay of the longest one that is there, so
    that the choices need not agree. Without this, graphs of mixed steps were seen to write noise with NaN
    log-probabilities (pytorch/torchtitan issue 3668); with it they compute the model: tests/integration/
    test_cuda_graphs.py. Graphs of decoding steps are captured and replayed for queries of one token, and stay as they
    are.
    """
    from vllm.config.compilation import CUDAGraphMode
    from vllm.v1.worker.gpu.model_states.default import DefaultModelState

    original = DefaultModelState.prepare_attn

    def as_captured(state: Any, input_batch: Any, cudagraph_mode: CUDAGraphMode, *args: Any, **kwargs: Any) -> Any:
        all_whole = state.vllm_config.compilation_config.cudagraph_mode == CUDAGraphMode.FULL
        if all_whole and cudagraph_mode == CUDAGraphMode.FULL and input_batch.max_query_len is None:
            input_batch = replace(input_batch, max_query_len=input_batch.num_tokens_after_padding)
        return original(state, input_batch, cudagraph_mode, *args, **kwargs)

    DefaultModelState.prepare_attn = as_captured


def announce_forwards(model: nn.Module, announce: Callable[[], None]) -> None:
    """Call ``announce`` before each forward of the engine, whether it is computed or a whole graph is replayed.

    Inputs have been prepared then: until it is launched a step has little for the device to do.
    """
    from vllm.v1.worker.gpu.cudagraph_utils import ModelCudaGraphManager

    original = ModelCudaGraphManager.run_fullgraph

    def announced(manager: Any, desc: Any) -> Any:
        announce()
        return original(manager, desc)

    ModelCudaGraphManager.run_fullgraph = announced
    model.register_forward_pre_hook(lambda *_: announce())


def lay_lora_out_on_the_host() -> None:
    """Give vLLM's GPU build trainer.lora_layout: its own waits for the device at every change of the batch.

    vLLM keeps its own layout where an adapter may change the embedding or the head, which read more of it.
    """
    from vllm.lora.punica_wrapper.punica_gpu import PunicaWrapperGPU

    original = PunicaWrapperGPU.update_metadata

    def on_the_host(
        wrapper: Any, mapping: Any, lora_index_to_id: list[int | None], max_loras: int, vocab_size: int, **kwargs: Any
    ) -> None:
        if not set(wrapper.lora_config.target_modules or _MORE_THAN_LINEAR).isdisjoint(_MORE_THAN_LINEAR):
            original(wrapper, mapping, lora_index_to_id, max_loras, vocab_size, **kwargs)
            return
        wrapper.is_prefill = mapping.is_prefill
        slot_of = {adapter: slot for slot, adapter in enumerate(lora_index_to_id) if adapter is not None}
        slots = token_slots(mapping.index_mapping, slot_of)
        write_layout(lora_layout(slots, num_slots=wrapper.max_loras), wrapper.token_mapping_meta)

    PunicaWrapperGPU.update_metadata = on_the_host


def hold_outputs_back(at_the_end: Callable[[RequestOutput], None]) -> None:
    """Make vLLM's scheduler hand on a reply's first token and its end, to which ``at_the_end`` may add, unless its
    caller listens: to text, for stop strings, or to other tokens' log-probabilities.

    Without this the front process is woken by every engine step and works on every token of every request, beside which
    it has callers to answer. A step's statistics, which nobody reads, are not made either.
    """
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.core.sched.scheduler import Scheduler

    original, held = Scheduler.update_from_output, HeldOutputs(at_the_end)

    def listens(request: Any) -> bool:
        asked = request.sampling_params
        return not asked or asked.detokenize or asked.logprobs or asked.output_kind != RequestOutputKind.FINAL_ONLY

    def held_back(scheduler: Any, *args: Any, **kwargs: Any) -> Any:
        by_client = original(scheduler, *args, **kwargs)
        for step in by_client.values():
            step.outputs = held.pass_on(step.outputs, scheduler.requests, listens)
        return {client: step for client, step in by_client.items() if step.outputs or step.finished_requests}

    Scheduler.update_from_output = held_back
    Scheduler.make_stats = lambda *_, **__: None
