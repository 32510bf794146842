"""Coloq's vLLM Worker: the engine process's side of training.

    engine's thread                                   learner's thread
    ───────────────                                   ────────────────
    execute_model …                                   waits
    coloq_submit(bytes) ──► queue ──────────────────► runs the command (a step, a write, a read)
    execute_model …                                   keeps the weights of version v, tells the front process
    coloq_poll(ticket)  ◄── answer ◄─────────────────
    coloq_install(v): kept weights → adapter slot     waits

Every ``coloq_*`` method is called by ``collective_rpc`` between two engine steps and returns at once. The trained
model's weights are views of the engine's own tensors; an adapter slot is filled from memory. On a GPU everything the
engine runs, and every graph that it captures, has a higher stream priority than the learner. What vLLM does otherwise
than by itself is in trainer.vllm_changes.
"""

import os
import sys
import time
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from torch import Tensor
from transformers import PreTrainedModel
from vllm.platforms import current_platform
from vllm.v1.outputs import AsyncModelRunnerOutput

from agent.errors import TrainerFailed
from rewards.models.backbone import Classifier
from rewards.models.encoding import RewardEncoder
from trainer import messages, vllm_changes
from trainer.adapter_slots import EngineSlots
from trainer.answer_line import ADDRESS, AnswerCaller
from trainer.child_process import live_as_child
from trainer.engine_facts import EngineFacts
from trainer.flat_tensors import FlatTensors
from trainer.kernels import fuse_kernels
from trainer.lanes import open_lanes
from trainer.learner import Learner
from trainer.pace import Pace
from trainer.pacer import Pacer
from trainer.reward_desk import RewardDesk
from trainer.sampled import SampledTokens
from trainer.served_scorer import served_scorer
from trainer.stalls import StallWatch
from trainer.thread import LearnerThread
from trainer.views import build_training_model, shared_with
from trainer.yielding import StepSignal

if TYPE_CHECKING or not current_platform.is_cpu():
    from vllm.v1.worker.gpu_worker import Worker
else:
    from vllm.v1.worker.cpu_worker import CPUWorker as Worker

_FAILED = object()
_SWITCH_INTERVAL_S = 0.0005
"""How long the learner's thread may keep Python's lock from the engine's; CPython's default is ten times that."""


class ColoqWorker(Worker):
    """vLLM's Worker for the current platform, with the learner beside the model."""

    _slots: EngineSlots | None = None
    _signal: StepSignal | None = None
    """On a CUDA device."""

    def init_device(self) -> None:
        """Prepare the platform before any weight is loaded or graph captured."""
        live_as_child()
        self._sampled = SampledTokens()
        self._stalls = StallWatch()
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        vllm_changes.hold_outputs_back(self._sampled.hand_over)
        if current_platform.is_cpu():
            vllm_changes.keep_plain_weights()
            vllm_changes.group_lora_by_adapter()
        else:
            vllm_changes.capture_at_engine_priority()
            vllm_changes.lay_lora_out_on_the_host()
            vllm_changes.keep_captured_query_length()
        super().init_device()
        if self.device.type == "cuda":
            torch.cuda.set_stream(torch.cuda.Stream(self.device, priority=vllm_changes.ENGINE_PRIORITY))

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """Load vLLM's model, then build the training model on its weights."""
        super().load_model(*args, **kwargs)
        self._lanes = open_lanes(self.device)
        self._pacer = Pacer(self._lanes.sizes, self._lanes.reason)
        if self.device.type == "cuda":
            self._signal = StepSignal(self.device, self._is_waited_for)
            vllm_changes.announce_forwards(self.get_model(), self._signal.begin)
        self._learner_thread: LearnerThread | None = None
        self._untrainable: str | None = None
        self._unfused: str | None = None
        self._shared = (0, 0)
        try:
            self._build_learner()
        except TrainerFailed as error:
            self._untrainable = str(error)

    def compile_or_warm_up_model(self) -> Any:
        """vLLM's own; the steps that it tries are no steps, and their outputs are never read."""
        result = super().compile_or_warm_up_model()
        self._pacer.forget_steps()
        if self._signal is not None:  # a CUDA device
            self._signal.end()
            if self._has_slots:
                self._engine_slots().rehearse()
            self._stalls.start()
        return result

    def execute_model(self, scheduler_output: Any) -> Any:
        """One engine step; the pacer sees it begin, and end when its output is read."""
        num_tokens = scheduler_output.total_num_scheduled_tokens
        if not num_tokens:
            return super().execute_model(scheduler_output)
        num_requests = len(scheduler_output.num_scheduled_tokens)
        self._pacer.begin_step(num_requests, num_tokens - num_requests)
        output: Any = _FAILED
        try:
            with self._stalls.call("execute_model"):
                output = super().execute_model(scheduler_output)
        finally:
            if output is not None:  # otherwise sample_tokens ends the step
                self._end_step()
        return output

    def sample_tokens(self, *args: Any, **kwargs: Any) -> Any:
        """vLLM's own; what was sampled stays here with its log-probabilities."""
        output: Any = _FAILED
        try:
            with self._stalls.call("sample_tokens"):
                output = super().sample_tokens(*args, **kwargs)
        finally:
            if not isinstance(output, AsyncModelRunnerOutput):
                self._end_step()
            elif self._signal is not None:
                self._signal.end()
        if output is None:
            return output
        if isinstance(output, AsyncModelRunnerOutput):
            return _NotedOutput(output, self._sampled, self._stalls, self._pacer)
        self._sampled.note(output)
        return output

    def _end_step(self) -> None:
        """A step that leaves nothing on the device."""
        if self._signal is not None:
            self._signal.end()
        self._pacer.end_step()

    def coloq_take_sampled(self, request_ids: list[str]) -> bytes:
        """What finished requests sampled, a list of SampledRow or nil as msgpack; they are forgotten then."""
        return msgspec.msgpack.encode(self._sampled.take(request_ids))

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
            partition_sizes=self._lanes.sizes,
            partition_reason=self._lanes.reason,
            unfused=self._unfused,
        )
        return msgspec.msgpack.encode(facts)

    def coloq_pace(self, data: bytes) -> bytes:
        """Take a Pace; returns the Pulse since the last one. Both as msgpack."""
        return msgspec.msgpack.encode(self._pacer.exchange(msgspec.msgpack.decode(data, type=Pace)))

    def coloq_trace(self, on: bool) -> bytes:
        """A StepTrace as msgpack; see Pacer.trace."""
        return msgspec.msgpack.encode(self._pacer.trace(on=on))

    def coloq_memory(self) -> dict[str, int]:
        """Bytes on the device by what holds them; what torch's allocator and the driver count comes last."""
        parameters = {tensor.data_ptr(): tensor.nbytes for tensor in self.get_model().parameters()}
        held = {
            "weights": sum(parameters.values()),
            "kv_cache": sum(storage.nbytes() for storage in self._kv_storages()),
            "adapter_slots": self._engine_slots().size_bytes if self._has_slots else 0,
        }
        if self._learner_thread is not None:
            held |= self._learner_thread.memory()
        if self.device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self.device)
            statistics = torch.cuda.memory_stats(self.device)
            held |= {
                "allocated": statistics["allocated_bytes.all.current"],
                "allocated_peak": statistics["allocated_bytes.all.peak"],
                "reserved": statistics["reserved_bytes.all.current"],
                "device_used": total - free,
            }
        return held

    def coloq_submit(self, data: bytes) -> int:
        """Hand a command to the learner; returns its ticket."""
        return self._learner().submit(messages.decode_command(data))

    def coloq_poll(self, ticket: int) -> bytes | None:
        """The command's answer, or None while it is not done."""
        answer = self._learner().poll(ticket)
        return None if answer is None else messages.encode(answer)

    def coloq_install(self, version: int) -> None:
        """Fill an adapter slot with a kept version's weights: device to device, on the engine's stream.

        Raises:
            TrainerFailed: the version is not kept, is installed already, or every slot is taken.
        """
        thread = self._learner()
        if version not in thread.kept:
            raise TrainerFailed(f"version {version} is not kept, only {sorted(thread.kept)}")
        self._engine_slots().install(version, FlatTensors.of(thread.kept[version]), thread.configs[version])

    def coloq_remove(self, version: int) -> None:
        """Free a version's slot; a version that is not installed is left alone."""
        self._engine_slots().remove(version)

    def coloq_installed(self) -> list[int]:
        """Versions that have a slot."""
        return self._engine_slots().installed

    def coloq_publish_live(self, version: int) -> float:
        """Method ``full``: round the learner's masters into the live weights, on the engine's stream.

        Called between two engine steps, so no step sees weights of two versions. Returns the milliseconds that the
        engine's thread was held.
        """
        started = time.perf_counter()
        self._learner().publish_live(version)
        return (time.perf_counter() - started) * 1000

    def coloq_restore_live(self, version: int) -> float:
        """Method ``full``: copy a kept version into the live weights; otherwise as coloq_publish_live."""
        started = time.perf_counter()
        self._learner().restore_live(version)
        return (time.perf_counter() - started) * 1000

    def _build_learner(self) -> None:
        engine_parameters = dict(self.get_model().named_parameters())
        model = build_training_model(self.vllm_config.model_config.hf_text_config, engine_parameters)
        named = dict(model.named_parameters())
        self._shared = (len(named), shared_with(named.values(), engine_parameters.values()))
        self._unfused = fuse_kernels(model)
        name = self.vllm_config.model_config.model
        desk = RewardDesk(self._lanes, self._pacer, self.device, served=self._served_scorer)
        wait = None if self._signal is None else self._signal.wait
        learner = Learner(model, base_model=name, lanes=self._lanes, pacer=self._pacer, interlude=desk, wait=wait)
        address = os.environ.get(ADDRESS)
        on_answer = (lambda ticket: None) if address is None else AnswerCaller(address).tell
        self._learner_thread = LearnerThread(learner, on_keep=self._place_adapter, desk=desk, on_answer=on_answer)

    def _is_waited_for(self) -> bool:
        """Whether a micro-batch that waits for the engine's steps may be on the device; asked with every step."""
        thread = self._learner_thread
        return thread is not None and thread.yields and self._pacer.is_flying()

    def _served_scorer(self, encoder: RewardEncoder) -> Classifier:
        """In the learner's thread."""
        config = self.vllm_config.model_config.hf_text_config
        classifier = served_scorer(config, dict(self.get_model().named_parameters()), encoder.tokenizer)
        decoder = classifier.model.base_model
        assert isinstance(decoder, PreTrainedModel)
        fuse_kernels(decoder)
        return classifier

    def _place_adapter(self, adapter: FlatTensors) -> None:
        """In the learner's thread: what installing would otherwise look up between two engine steps."""
        self._engine_slots().place(adapter.layout)

    def _learner(self) -> LearnerThread:
        if self._learner_thread is None:
            raise TrainerFailed(self._untrainable or "the learner is not built yet")
        return self._learner_thread

    @property
    def _has_slots(self) -> bool:
        return getattr(self.model_runner, "lora_manager", None) is not None

    def _engine_slots(self) -> EngineSlots:
        """Of vLLM's own adapter manager, which has no public type and is made after the model."""
        if self._slots is None:
            manager = getattr(self.model_runner, "lora_manager", None)
            if manager is None:
                raise TrainerFailed("the engine has no adapter slots: tuning.method is not adapter")
            self._slots = EngineSlots(manager._adapter_manager)
        return self._slots

    def _kv_storages(self) -> list[torch.UntypedStorage]:
        """Each storage once; a layer's cache may be a tensor or a list of them."""
        layers = getattr(self.model_runner, "kv_caches", None) or []
        tensors = [tensor for layer in layers for tensor in (layer if isinstance(layer, list | tuple) else [layer])]
        return list({storage.data_ptr(): storage for storage in map(Tensor.untyped_storage, tensors)}.values())


class _NotedOutput(AsyncModelRunnerOutput):
    """A step's output that is still on the device; its log-probabilities are noted when it is read."""

    def __init__(
        self, output: AsyncModelRunnerOutput, sampled: SampledTokens, stalls: StallWatch, pacer: Pacer
    ) -> None:
        self._output, self._sampled, self._stalls, self._pacer = output, sampled, stalls, pacer

    def get_output(self) -> Any:
        """See AsyncModelRunnerOutput."""
        began_s = time.perf_counter()
        try:
            with self._stalls.call("get_output"):
                output = self._output.get_output()
        finally:
            self._pacer.waited(time.perf_counter() - began_s)
            self._pacer.end_step()
        self._sampled.note(output)
        return output

    def get_kv_connector_output(self) -> Any:
        """See vLLM's AsyncOutput."""
        return self._output.get_kv_connector_output()
