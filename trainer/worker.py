"""Coloq's vLLM Worker: the engine process's side of training. One of the two files that import vLLM.

    engine's thread                                   learner's thread
    ───────────────                                   ────────────────
    execute_model …                                   waits
    coloq_submit(bytes) ──► queue ──────────────────► runs the command (a step, a write, a read)
    execute_model …                                   keeps the weights of version v
    coloq_poll(ticket)  ◄── answer ◄─────────────────
    coloq_install(v): kept weights → adapter slot     waits

Every ``coloq_*`` method is called by ``collective_rpc`` between two engine steps and returns at once. The trained
model's weights are views of the engine's own tensors; an adapter slot is filled from memory. The two changes made to
vLLM, both on a CPU only, are here: weights stay plain, and LoRA is applied per adapter.
"""

import os
import signal
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from msgspec import Struct
from torch import Tensor, nn
from vllm.lora.lora_model import LoRAModel
from vllm.lora.peft_helper import PEFTHelper
from vllm.model_executor.layers import utils as layer_utils
from vllm.platforms import current_platform

from agent.errors import TrainerFailed
from trainer import messages
from trainer.cpu_lora import add_lora_linear
from trainer.learner import Learner
from trainer.thread import LearnerThread
from trainer.views import build_training_model, shared_with

if TYPE_CHECKING or not current_platform.is_cpu():
    from vllm.v1.worker.gpu_worker import Worker
else:
    from vllm.v1.worker.cpu_worker import CPUWorker as Worker

_PARENT_POLL_S = 1.0


class EngineFacts(Struct, frozen=True):
    """What the front process asks once the engine is up."""

    device: str
    dtype: str
    kv_cache_tokens: int
    num_parameters: int
    """Parameters of the training model, adapters excluded."""
    num_shared: int
    """Those that lie wholly inside the memory of one of the engine's own tensors."""
    untrainable: str | None
    """Why this model cannot be trained here; None when it can."""


class ColoqWorker(Worker):
    """vLLM's Worker for the current platform, with the learner beside the model."""

    def init_device(self) -> None:
        """Prepare the platform before any weight is loaded or graph captured."""
        _live_as_child()
        if current_platform.is_cpu():
            keep_plain_weights()
            group_lora_by_adapter()
        super().init_device()

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """Load vLLM's model, then build the training model on its weights."""
        super().load_model(*args, **kwargs)
        self._learner_thread: LearnerThread | None = None
        self._untrainable: str | None = None
        self._shared = (0, 0)
        try:
            self._build_learner()
        except TrainerFailed as error:
            self._untrainable = str(error)

    def coloq_describe(self) -> bytes:
        """EngineFacts as msgpack."""
        cache = self.vllm_config.cache_config
        facts = EngineFacts(
            device=str(self.device),
            dtype=str(self.vllm_config.model_config.dtype).removeprefix("torch."),
            kv_cache_tokens=(cache.num_gpu_blocks or 0) * cache.block_size,
            num_parameters=self._shared[0],
            num_shared=self._shared[1],
            untrainable=self._untrainable,
        )
        return msgspec.msgpack.encode(facts)

    def coloq_submit(self, data: bytes) -> int:
        """Hand a command to the learner; returns its ticket."""
        return self._learner().submit(messages.decode_command(data))

    def coloq_poll(self, ticket: int) -> bytes | None:
        """The command's answer, or None while it is not done."""
        answer = self._learner().poll(ticket)
        return None if answer is None else messages.encode(answer)

    def coloq_install(self, version: int) -> None:
        """Fill an adapter slot with a kept version's weights, without disk.

        Raises:
            TrainerFailed: the version is not kept, is installed already, or every slot is taken.
        """
        thread = self._learner()
        adapters = self._adapters()
        if version not in thread.kept:
            raise TrainerFailed(f"version {version} is not kept, only {sorted(thread.kept)}")
        if version in adapters.list_adapters():
            raise TrainerFailed(f"version {version} is installed already, and an installed policy is immutable")
        if len(adapters.list_adapters()) >= adapters.lora_slots:
            raise TrainerFailed(f"all {adapters.lora_slots} adapter slots are taken")
        adapters.add_adapter(self._lora_model(version, thread.kept[version], thread.configs[version]))
        adapters.activate_adapter(version)
        for tensor in thread.kept[version].values():
            if tensor.is_cuda:  # the learner may drop it while the engine's stream still reads
                tensor.record_stream(torch.cuda.current_stream())

    def coloq_remove(self, version: int) -> None:
        """Free a version's slot; a version that is not installed is left alone."""
        self._adapters().remove_adapter(version)

    def coloq_installed(self) -> list[int]:
        """Versions that have a slot."""
        return sorted(self._adapters().list_adapters())

    def _build_learner(self) -> None:
        engine_parameters = dict(self.get_model().named_parameters())
        model = build_training_model(self.vllm_config.model_config.hf_text_config, engine_parameters)
        named = dict(model.named_parameters())
        self._shared = (len(named), shared_with(named.values(), engine_parameters.values()))
        learner = Learner(model, base_model=self.vllm_config.model_config.model)
        self._learner_thread = LearnerThread(learner, stream=_side_stream(self.device))

    def _learner(self) -> LearnerThread:
        if self._learner_thread is None:
            raise TrainerFailed(self._untrainable or "the learner is not built yet")
        return self._learner_thread

    def _adapters(self) -> Any:
        """vLLM's own adapter manager, which has no public type."""
        return self.model_runner.lora_manager._adapter_manager

    def _lora_model(self, version: int, tensors: Mapping[str, Tensor], config: Mapping[str, object]) -> LoRAModel:
        """vLLM folds alpha / rank into B in place, so it is given copies: the kept weights are what gets written."""
        mapper = getattr(self.get_model(), "hf_to_vllm_mapper", None)
        return LoRAModel.from_lora_tensors(
            lora_model_id=version,
            tensors={name: tensor.clone() for name, tensor in tensors.items()},
            peft_helper=PEFTHelper.from_dict(dict(config)),
            device=str(self.device),
            dtype=self.vllm_config.lora_config.lora_dtype,
            weights_mapper=mapper.get_rename_mapper() if mapper is not None else None,
        )


def keep_plain_weights() -> None:
    """Make vLLM's CPU build keep each layer's weight, which it would pack away and delete.

    The packed copy would not be the tensor that the training model views. Call before the model is loaded.
    """

    def plain_gemm(layer: nn.Module, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear  # type: ignore[assignment]  # vLLM keeps a function there

    layer_utils.dispatch_cpu_unquantized_gemm = plain_gemm


def group_lora_by_adapter() -> None:
    """Give vLLM's CPU build trainer.cpu_lora's operator: 3 times faster, and right for mixed batches."""
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

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
            slots=wrapper.token_lora_indices,
        )

    PunicaWrapperCPU.add_lora_linear = grouped


def _side_stream(device: torch.device) -> torch.cuda.Stream | None:
    """On CUDA the learner works on a stream of its own; torch orders nothing between it and the engine's."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None


def _live_as_child() -> None:
    """The front process decides when this one ends.

    Ctrl-C reaches the whole process group; here it is ignored, so that requests in flight can finish. When the front
    process is gone, however it ended, this process ends too: nobody else would end it.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_POLL_S)
        os._exit(1)

    threading.Thread(target=watch, name="coloq-parent-watch", daemon=True).start()
