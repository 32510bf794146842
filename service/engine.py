"""One engine process: vLLM's AsyncLLM with Coloq's Worker. What it is asked for and what it
answers are in service.engine_arguments and service.engine_output.

Built, used until it dies or is stopped, never restarted: that is service.supervised_engine's work. Import this module
only after ``service.engine_environment.prepare`` has set the process's environment.
"""

import asyncio
import multiprocessing
import os
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import msgspec
import structlog
from vllm import TokensPrompt
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import VLLMValidationError
from vllm.outputs import RequestOutput
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.metrics.loggers import PrometheusStatLogger

from agent.completion import BASE_VERSION, Completion, Sampling
from agent.errors import EngineDead, EngineError, InvalidBrief, ModelError, PromptTooLong
from agent.ports import Delta, GenerateRequest
from service.answer_line import AnswerLine
from service.config import EngineConfig
from service.engine_arguments import adapter_request, engine_arguments, sampling_params
from service.engine_output import finished, joined, sampled_tokens, to_completion, undecodable
from service.engine_warm_up import reply_lengths
from service.sampled_logprobs import LogprobReader, logprobs_among
from trainer.answer_line import ADDRESS
from trainer.engine_facts import EngineFacts
from trainer.sampled import handed_over

log = structlog.get_logger(__name__)
T = TypeVar("T")

WORKER = "trainer.worker.ColoqWorker"
_LIVENESS_POLL_S = 0.2
_ANY_PROMPT = (1,)
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

    def __init__(self, llm: AsyncLLM, facts: EngineFacts, config: EngineConfig, line: AnswerLine) -> None:
        self._llm = llm
        self._line = line
        self._config = config
        self._tokenizer = llm.get_tokenizer()
        self.facts = facts
        self._logprobs = LogprobReader(lambda request_ids: self.call("coloq_take_sampled", request_ids))
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
        async with AsyncExitStack() as abandoned:
            line = AnswerLine()
            abandoned.callback(line.close)
            with _in_environment(ADDRESS, line.address):
                llm = await _build(arguments, config.start_timeout_s)
            abandoned.push_async_callback(asyncio.to_thread, llm.shutdown, _SHUTDOWN_S)
            facts = msgspec.msgpack.decode((await llm.collective_rpc("coloq_describe"))[0], type=EngineFacts)
            engine = cls(llm, facts, config, line)
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
        self._line.close()
        self._mark_dead()

    async def sample(self, request: GenerateRequest, version: int) -> Completion:
        """Sample one completion of a policy version that is installed.

        Raises:
            PromptTooLong: prompt plus ``max_tokens`` exceed the context window.
            InvalidBrief: the schema uses what the engine cannot decode to.
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

    async def answered(self, ticket: int, within_s: float) -> None:
        """Return when the learner has said that the ticket's answer is there, or after ``within_s``.

        Raises:
            EngineDead: the process is gone.
        """
        await self._unless_dead(self._line.heard(ticket, within_s))

    async def _sample(self, request: GenerateRequest, version: int) -> Completion:
        prompt = TokensPrompt(
            prompt_token_ids=list(request.prompt_token_ids), cache_salt=f"{request.cache_scope}@v{version}"
        )
        outputs = self._llm.generate(
            prompt,
            sampling_params(request.sampling, streams=request.listener is not None),
            request.request_id,
            lora_request=adapter_request(version),
            priority=int(request.priority),
        )
        try:
            heard = await self._heard(outputs, request)
        except (ValueError, VLLMValidationError) as error:  # vLLM does not take it; nothing has been sampled
            if request.sampling.schema is None:
                raise
            raise undecodable(str(error)) from error
        final = finished(heard, request.sampling)
        logprobs = await self._sampled_logprobs(final, request)
        completion = to_completion(final, request, version, self._text, logprobs)
        return replace(completion, tokens=sampled_tokens(final, request.sampling, self._token_text))

    async def _sampled_logprobs(self, final: RequestOutput, request: GenerateRequest) -> tuple[float, ...]:
        """They come with a reply's end, unless it was ended in this process, at a stop string."""
        token_ids = final.outputs[0].token_ids
        sampled = handed_over(final.kv_transfer_params)
        if sampled is None:
            return await self._logprobs.read(request.request_id, token_ids)
        return logprobs_among(sampled, token_ids)

    async def _heard(self, outputs: AsyncIterator[RequestOutput], request: GenerateRequest) -> RequestOutput | None:
        """The finished output; with a listener there are many, each with what is new, and the last sums them up."""
        parts: list[RequestOutput] = []
        async for output in outputs:
            parts.append(output)
            if request.listener is not None:
                tokens = sampled_tokens(output, request.sampling, self._token_text)
                request.listener(Delta(output.outputs[0].text, tokens))
        return joined(parts) if parts else None

    def _token_text(self, token_id: int) -> str:
        return str(self._tokenizer.decode([token_id]))

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
        except (EngineError, InvalidBrief, asyncio.CancelledError):
            raise
        except Exception as error:
            raise EngineError(f"{type(error).__name__}: {error}") from error
        finally:
            await _cancelled(task)

    async def _watch_liveness(self) -> None:
        while not self._llm.errored:  # noqa: ASYNC110 - vLLM offers a flag, no event
            await asyncio.sleep(_LIVENESS_POLL_S)
        self._mark_dead()

    def _mark_dead(self) -> None:
        if not self._died.done():
            self._died.set_result(None)

    async def _warm_up(self) -> None:
        """Pay one-time costs before the first caller does: of a generation, and on a GPU of every number of them."""
        first = GenerateRequest("warm-up", _ANY_PROMPT, Sampling(max_tokens=2, temperature=0.0))
        await self.sample(first, BASE_VERSION)
        if self.facts.device.startswith("cuda"):
            lengths = reply_lengths(self._config.max_num_seqs, self._config.max_model_len - len(_ANY_PROMPT))
            replies = (self._run_on(f"warm-up-{number}", length) for number, length in enumerate(lengths))
            await self._unless_dead(_all(replies))

    async def _run_on(self, request_id: str, num_tokens: int) -> None:
        """Sample so many tokens, whatever they are."""
        sampling = sampling_params(Sampling(max_tokens=num_tokens))
        sampling.ignore_eos = True
        prompt = TokensPrompt(prompt_token_ids=list(_ANY_PROMPT))
        async for _ in self._llm.generate(prompt, sampling, request_id):
            pass


async def _all(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    await asyncio.gather(*works)


@contextmanager
def _in_environment(name: str, value: str) -> Iterator[None]:
    """For processes that are started within the block."""
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)


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


async def _cancelled(task: "asyncio.Future[Any]") -> None:
    """Cancel a task that is still running and wait for its end, so that vLLM hears of the abort."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=1.0)
    if task.done() and not task.cancelled():
        task.exception()  # asked for, so that asyncio does not report it as never retrieved
