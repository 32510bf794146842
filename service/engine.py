"""One engine process: vLLM's AsyncLLM with Coloq's Worker. One of the two files that import vLLM.

Built, used until it dies or is stopped, never restarted: that is service.supervised_engine's work. Import this module
only after ``service.engine_environment.prepare`` has set the process's environment.
"""

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import msgspec
import structlog
from vllm import SamplingParams, TokensPrompt
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.lora.request import LoRARequest
from vllm.outputs import RequestOutput
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.metrics.loggers import PrometheusStatLogger
from vllm.v1.metrics.stats import RequestStateStats

from agent.completion import BASE_VERSION, Completion, FinishReason, GenerationTiming, Sampling, VersionSpan
from agent.errors import EngineDead, EngineError, ModelError, PromptTooLong
from agent.ports import GenerateRequest
from service.config import EngineConfig
from service.engine_footprint import CPU_KV_CACHE_GIB
from trainer.worker import EngineFacts

log = structlog.get_logger(__name__)
T = TypeVar("T")

WORKER = "trainer.worker.ColoqWorker"
_IN_PROCESS_EXECUTOR = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
"""The worker lives in the engine process. Named by path: vLLM's CPU platform replaces the short name `uni` by a third
process, to set OMP's environment, which is set here before the process starts."""
_FREE_AT_START = 0.05
"""vLLM asks for this share of the device to be free when it starts; the memory plan is what decides."""
_LIVENESS_POLL_S = 0.2
_SHUTDOWN_S = 1.0
"""The engine process keeps nothing that outlives it, so little is lost by killing one that does not end at once."""


class _SilentStats(PrometheusStatLogger):  # type: ignore[misc]  # vLLM's classes are not followed
    """Makes vLLM measure requests and keep it to itself.

    vLLM fills a request's times only when it has a logger of statistics; beside any logger that is no Prometheus logger
    it sets up its own Prometheus metrics, in the process's shared registry and at a cost in every engine step.
    """

    def __init__(self, *_: object, **__: object) -> None:
        """vLLM's own would register its metrics."""

    def record(self, *_: object, **__: object) -> None:
        """Called for every engine step."""

    def record_sleep_state(self, *_: object, **__: object) -> None:
        """Never asleep."""

    def record_admission_rejection(self, *_: object, **__: object) -> None:
        """Never rejected."""

    def log(self) -> None:
        """Nothing was kept."""

    def log_engine_initialized(self) -> None:
        """The node says so itself."""


class VllmEngine:
    """A running engine process."""

    def __init__(self, llm: AsyncLLM, facts: EngineFacts, config: EngineConfig) -> None:
        self._llm = llm
        self._config = config
        self._tokenizer = llm.get_tokenizer()
        self.facts = facts
        self._died: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watch = asyncio.create_task(self._watch_liveness(), name="engine-liveness")

    @classmethod
    async def launch(
        cls,
        model: str,
        config: EngineConfig,
        *,
        num_adapters: int,
        adapter_rank: int,
        target_modules: Sequence[str] = (),
        kv_cache_bytes: int | None = None,
        worker: str = WORKER,
    ) -> "VllmEngine":
        """Start the engine process and wait until it can serve.

        Args:
            target_modules: layers that an adapter may change; without any, every layer that vLLM can adapt.
            kv_cache_bytes: the memory plan's KV cache; None takes ``engine.kv_cache_gib``, or a CPU's default.

        Raises:
            ModelError: vLLM could not load the model, or the engine did not become ready in time.
        """
        started = time.perf_counter()
        arguments = engine_arguments(
            model,
            config,
            num_adapters=num_adapters,
            adapter_rank=adapter_rank,
            target_modules=target_modules,
            worker=worker,
            kv_cache_bytes=kv_cache_bytes,
        )
        llm = await _build(arguments, config.start_timeout_s)
        async with AsyncExitStack() as abandoned:
            abandoned.push_async_callback(asyncio.to_thread, llm.shutdown, _SHUTDOWN_S)
            facts = msgspec.msgpack.decode((await llm.collective_rpc("coloq_describe"))[0], type=EngineFacts)
            engine = cls(llm, facts, config)
            abandoned.callback(engine._watch.cancel)
            await engine._warm_up()
            abandoned.pop_all()
        log.info(
            "engine_started",
            duration_s=round(time.perf_counter() - started, 1),
            device=facts.device,
            shared_parameters=f"{facts.num_shared}/{facts.num_parameters}",
            untrainable=facts.untrainable,
        )
        return engine

    @property
    def alive(self) -> bool:
        return not self._died.done()

    async def died(self) -> None:
        """Return when the engine process is gone."""
        await asyncio.shield(self._died)

    async def stop(self) -> None:
        """End the engine process and wait for it."""
        self._watch.cancel()
        await asyncio.to_thread(self._llm.shutdown, _SHUTDOWN_S)
        self._mark_dead()

    async def sample(self, request: GenerateRequest, version: int) -> Completion:
        """Sample one completion of a policy version that is installed.

        Raises:
            PromptTooLong: prompt plus ``max_tokens`` exceed the context window.
            EngineDead: the process died before the completion was done.
            EngineError: vLLM refused or failed this request.
        """
        length = len(request.prompt_token_ids) + request.sampling.max_tokens
        if length > self._config.max_model_len:
            raise PromptTooLong(
                f"prompt and max_tokens must fit {self._config.max_model_len} tokens, got "
                f"{len(request.prompt_token_ids)} + {request.sampling.max_tokens}"
            )
        return await self._unless_dead(self._sample(request, version))

    async def call(self, method: str, *args: Any) -> Any:
        """Call a worker method between two engine steps.

        Raises:
            EngineDead: the process is gone.
            EngineError: the method raised.
        """
        return (await self._unless_dead(self._llm.collective_rpc(method, args=args)))[0]

    async def _sample(self, request: GenerateRequest, version: int) -> Completion:
        prompt = TokensPrompt(
            prompt_token_ids=list(request.prompt_token_ids), cache_salt=f"{request.cache_scope}@v{version}"
        )
        final = None
        async for output in self._llm.generate(
            prompt,
            sampling_params(request.sampling),
            request.request_id,
            lora_request=adapter_request(version),
            priority=int(request.priority),
        ):
            final = output
        reason = final.outputs[0].finish_reason if final is not None else "no output"
        if final is None or reason not in ("stop", "length"):
            raise EngineError(f"generation ended early: {reason}")
        return to_completion(final, request, version, self._text)

    def _text(self, token_ids: Sequence[int]) -> str:
        """A reply's text: without special tokens, and without a last character whose bytes are not complete."""
        text: str = self._tokenizer.decode(list(token_ids), skip_special_tokens=True)
        return text.rstrip("\ufffd")

    async def _unless_dead(self, work: Coroutine[Any, Any, T]) -> T:
        """Await ``work``, or raise EngineDead as soon as the process is gone: vLLM may then never answer."""
        if self._died.done():
            work.close()
            raise EngineDead("the engine process is gone")
        task = asyncio.ensure_future(work)
        waiting: set[asyncio.Future[Any]] = {task, self._died}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise EngineDead("the engine process died")
            return task.result()
        except EngineDeadError as error:
            self._mark_dead()
            raise EngineDead("the engine process died") from error
        except (EngineError, asyncio.CancelledError):
            raise
        except Exception as error:
            raise EngineError(f"{type(error).__name__}: {error}") from error
        finally:
            await _cancelled(task)

    async def _watch_liveness(self) -> None:
        while not self._llm.errored:  # noqa: ASYNC110 - vLLM offers a flag, no event
            await asyncio.sleep(_LIVENESS_POLL_S)
        log.error("engine_died")
        self._mark_dead()

    def _mark_dead(self) -> None:
        if not self._died.done():
            self._died.set_result(None)

    async def _warm_up(self) -> None:
        """Pay one-time costs of the first generation before the first caller does."""
        request = GenerateRequest("warm-up", (1,), Sampling(max_tokens=2, temperature=0.0))
        await self.sample(request, BASE_VERSION)


async def _build(arguments: AsyncEngineArgs, timeout_s: float) -> AsyncLLM:
    """Build AsyncLLM in a thread: it blocks until the engine process is ready."""
    building = asyncio.create_task(asyncio.to_thread(AsyncLLM.from_engine_args, arguments, stat_loggers=[_SilentStats]))
    try:
        return await asyncio.wait_for(asyncio.shield(building), timeout=timeout_s)
    except TimeoutError as error:
        await _abandon(building)
        raise ModelError(f"the engine must be ready within {timeout_s:.0f} s") from error
    except asyncio.CancelledError:
        await _abandon(building)
        raise
    except Exception as error:
        raise ModelError(f"vLLM could not start {arguments.model}: {error}") from error


async def _abandon(building: "asyncio.Task[AsyncLLM]") -> None:
    """End a start that nobody waits for: the thread returns once its engine process is gone."""
    while not building.done():
        for process in multiprocessing.active_children():
            process.kill()
        await asyncio.wait({building}, timeout=0.2)
    if building.exception() is None:
        await asyncio.to_thread(building.result().shutdown, 0.0)


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
        distributed_executor_backend=_IN_PROCESS_EXECUTOR if on_cpu else "uni",
        worker_cls=worker,
        use_tqdm_on_load=False,
        **_adapter_arguments(num_adapters, adapter_rank, target_modules),
        scheduling_policy="priority",
        logprobs_mode="processed_logprobs",
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


def _batched_tokens(config: EngineConfig, *, on_cpu: bool) -> int | None:
    """Tokens per engine step. Where prompts are not split, the longest one must fit."""
    if config.max_num_batched_tokens is None or not on_cpu:
        return config.max_num_batched_tokens
    return max(config.max_num_batched_tokens, config.max_model_len)


def sampling_params(sampling: Sampling) -> SamplingParams:
    """vLLM's sampling parameters; the sampled token's logprob is always asked for.

    Text is wanted once, at the end: vLLM would detokenise every step of every request in the front process, and the
    logprobs' tokens too. Stop strings need it, though.
    """
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
        detokenize=bool(sampling.stop),
        logprobs=0,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def adapter_request(version: int) -> LoRARequest | None:
    """The adapter of a version; None for the base model. Installed before it is used, never loaded from the path."""
    if version == BASE_VERSION:
        return None
    return LoRARequest(lora_name=f"policy-v{version}", lora_int_id=version, lora_path=f"policy-v{version}")


def to_completion(
    final: RequestOutput, request: GenerateRequest, version: int, decode: Callable[[Sequence[int]], str]
) -> Completion:
    """vLLM's finished output as a Completion; ``decode`` makes the text of one that was not detokenised.

    Raises:
        EngineError: a token came without its logprob.
    """
    output = final.outputs[0]
    token_ids = tuple(output.token_ids)
    entries = output.logprobs or []
    if len(entries) != len(token_ids):
        raise EngineError(f"every token needs a logprob, got {len(token_ids)} tokens, {len(entries)} logprobs")
    return Completion(
        text=output.text if request.sampling.stop else decode(token_ids),
        prompt_token_ids=request.prompt_token_ids,
        token_ids=token_ids,
        logprobs=tuple(entry[token].logprob for entry, token in zip(entries, token_ids, strict=True)),
        sampling=request.sampling,
        finish_reason=FinishReason(output.finish_reason),
        versions=VersionSpan(version, version),
        timing=timing_of(final.metrics),
    )


def timing_of(stats: RequestStateStats | None) -> GenerationTiming | None:
    """What vLLM measured of a finished request.

    The time to the first token runs by this process's wall clock, so a clock that was set back must not make it
    negative; the times between tokens are the engine process's, by a monotonic clock.
    """
    if stats is None or stats.num_generation_tokens == 0:
        return None
    num_gaps = stats.num_generation_tokens - 1
    return GenerationTiming(
        first_token_s=max(stats.first_token_latency, 0.0),
        inter_token_s=(stats.last_token_ts - stats.first_token_ts) / num_gaps if num_gaps else None,
    )


async def _cancelled(task: "asyncio.Future[Any]") -> None:
    """Cancel a task that is still running and wait for its end, so that vLLM hears of the abort."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=1.0)
    if task.done() and not task.cancelled():
        task.exception()  # asked for, so that asyncio does not report it as never retrieved
