"""What is asked of vLLM and what is made of its answers. Needs vLLM, starts no engine."""

import warnings
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # vLLM's own imports warn, differently with each version
    from vllm.outputs import CompletionOutput, RequestOutput
    from vllm.platforms import current_platform
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.metrics.stats import RequestStateStats

    from service.engine import VllmEngine
    from service.engine_arguments import adapter_request, engine_arguments, sampling_params
    from service.engine_output import finished, joined, sampled_tokens, timing_of, to_completion, undecodable

from agent.completion import FinishReason, GenerationTiming, SampledToken, Sampling, TokenChoice, VersionSpan
from agent.errors import EngineError, InvalidBrief
from agent.ports import GenerateRequest
from service.answer_line import AnswerLine
from service.config import EngineConfig
from service.engine_warm_up import reply_lengths

REQUEST = GenerateRequest("r", (5, 6), Sampling(max_tokens=3, seed=1))


def output(
    token_ids: list[int], logprobs: list[float] | None = None, *, stats: RequestStateStats | None = None
) -> RequestOutput:
    entries = (
        None
        if logprobs is None
        else [{token: SimpleNamespace(logprob=value)} for token, value in zip(token_ids, logprobs, strict=False)]
    )
    completion = CompletionOutput(
        index=0,
        text="ab",
        token_ids=token_ids,
        cumulative_logprob=None,
        logprobs=entries,
        finish_reason="stop",
    )
    return RequestOutput("r", None, [5, 6], None, [completion], finished=True, metrics=stats)


def test_the_engine_serves_adapters_by_priority_with_processed_logprobs(tmp_path: Path) -> None:
    """What tuning relies on is asked for whatever the platform; a CPU is always eager."""
    config = EngineConfig(max_num_seqs=8, kv_cache_gib=0.5, enforce_eager=False)
    arguments = engine_arguments(str(tmp_path), config, num_adapters=7, adapter_rank=16, worker="w.W")
    assert (arguments.enable_lora, arguments.max_loras, arguments.max_cpu_loras) == (True, 7, 7)
    assert (arguments.scheduling_policy, arguments.logprobs_mode) == ("priority", "processed_logprobs")
    assert (arguments.worker_cls, arguments.max_lora_rank) == ("w.W", 16)
    assert arguments.kv_cache_memory_bytes == 2**29
    assert arguments.enforce_eager is current_platform.is_cpu()


@pytest.mark.parametrize(
    ("settings", "mode", "graphs"),
    [
        ({}, 0, "FULL"),
        ({"cuda_graphs": "piecewise", "torch_compile": True}, 3, "FULL_AND_PIECEWISE"),
        ({"torch_compile": True}, 3, "FULL"),
    ],
)
def test_a_gpu_is_told_what_to_capture_and_to_compile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], mode: int, graphs: str
) -> None:
    """Whole graphs for every step there is; vLLM's own defaults are the second row. An eager engine is told nothing of
    either, and neither is a CPU."""
    monkeypatch.setattr("service.engine_arguments.current_platform", SimpleNamespace(is_cpu=lambda: False))
    config = EngineConfig.model_validate({"kv_cache_gib": 1.0, **settings})
    arguments = engine_arguments(str(tmp_path), config, num_adapters=0, adapter_rank=8, worker="w.W")
    asked = arguments.compilation_config
    assert (int(asked.mode), asked.cudagraph_mode.name) == (mode, graphs)
    assert arguments.attention_config.flash_attn_max_num_splits_for_cuda_graph == 8  # of 1024 tokens
    largest = max(asked.cudagraph_capture_sizes or (0,))
    assert (largest, arguments.max_num_batched_tokens) == (2048 if graphs == "FULL" else 0, 2048)
    eager = config.model_copy(update={"enforce_eager": True})
    untold = engine_arguments(str(tmp_path), eager, num_adapters=0, adapter_rank=8, worker="w.W").compilation_config
    assert untold.cudagraph_mode is None


def test_only_layers_that_adapters_may_change_get_slots(tmp_path: Path) -> None:
    """The configured modules are vLLM's; without slots, as with method full, its layers are plain ones."""
    config = EngineConfig()
    modules = ("q_proj", "down_proj")
    some = engine_arguments(str(tmp_path), config, num_adapters=2, adapter_rank=8, worker="w.W", target_modules=modules)
    none = engine_arguments(str(tmp_path), config, num_adapters=0, adapter_rank=8, worker="w.W", target_modules=modules)
    assert some.lora_target_modules == ["q_proj", "down_proj"]
    assert (none.enable_lora, none.lora_target_modules) == (False, None)


def test_the_memory_plan_sizes_the_cache(tmp_path: Path) -> None:
    """What was planned goes before the configured size; with neither it is a CPU's half GiB."""

    def cache(config: EngineConfig, planned: int | None) -> int | None:
        arguments = engine_arguments(
            str(tmp_path), config, num_adapters=4, adapter_rank=8, worker="w.W", kv_cache_bytes=planned
        )
        size: int | None = arguments.kv_cache_memory_bytes
        return size

    assert cache(EngineConfig(kv_cache_gib=2.0), 3 * 2**30) == 3 * 2**30
    assert cache(EngineConfig(kv_cache_gib=2.0), None) == 2 * 2**30
    assert cache(EngineConfig(), None) == 2**29


def test_a_cpu_never_splits_a_prompt(tmp_path: Path) -> None:
    """vLLM cannot rewind a seeded CPU generator, which it does when a prompt takes two steps; so there the longest
    prompt fits one step, whatever the configuration says."""
    config = EngineConfig(max_model_len=512, max_num_batched_tokens=64)
    arguments = engine_arguments(str(tmp_path), config, num_adapters=4, adapter_rank=8, worker="w.W")
    expected = (False, 512) if current_platform.is_cpu() else (None, 64)
    assert (arguments.enable_chunked_prefill, arguments.max_num_batched_tokens) == expected


def test_sampling_parameters_ask_for_the_sampled_tokens_logprob_only() -> None:
    """`logprobs=0` is the sampled token alone; a top_k of 0 is the whole vocabulary."""
    params = sampling_params(Sampling(max_tokens=3, temperature=0.5, top_p=0.9, seed=7, stop=("x",)))
    assert (params.max_tokens, params.temperature, params.top_p, params.seed) == (3, 0.5, 0.9, 7)
    assert (params.logprobs, params.stop) == (0, ["x"])
    assert params.top_k in (0, -1)


def test_only_those_who_listen_get_text_as_it_comes() -> None:
    """Everybody else asks vLLM for the final output alone, without text."""
    quiet, heard = (sampling_params(Sampling(max_tokens=3), streams=streams) for streams in (False, True))
    assert (quiet.output_kind, quiet.detokenize) == (RequestOutputKind.FINAL_ONLY, False)
    assert (heard.output_kind, heard.detokenize) == (RequestOutputKind.DELTA, True)


def test_schemas_and_top_logprobs_are_asked_for() -> None:
    """A schema is decoded to; the number of tokens to tell is vLLM's `logprobs`."""
    plain = sampling_params(Sampling(max_tokens=3))
    params = sampling_params(Sampling(max_tokens=3, schema='{"type":"string"}', top_logprobs=5))
    assert plain.structured_outputs is None
    assert (params.structured_outputs.json, params.logprobs) == ('{"type":"string"}', 5)


def test_a_streams_parts_are_summed_up() -> None:
    """Text, tokens and logprobs of all parts make one completion; end and times are the last one's."""
    stats = RequestStateStats(num_generation_tokens=3, first_token_ts=1.0, last_token_ts=1.5)
    parts = [output([3, 4], [-0.5, -1.5]), output([5], [-2.5], stats=stats)]
    parts[0].outputs[0].finish_reason = None
    parts[1].outputs[0].text = "c"
    request = replace(REQUEST, listener=lambda delta: None)
    completion = to_completion(joined(parts), request, 0, str, (-0.5, -1.5, -2.5))
    assert (completion.text, completion.token_ids, completion.logprobs) == ("abc", (3, 4, 5), (-0.5, -1.5, -2.5))
    assert completion.timing is not None
    assert completion.finish_reason is FinishReason.STOP


def test_tokens_are_told_with_the_most_probable_ones() -> None:
    """The two best of three come first, the sampled one is told whatever its rank, and what cannot be has a number that
    JSON can hold. Nothing is told to who does not ask."""
    final = output([3], [-2.0])
    values = {3: -2.0, 4: -0.5, 5: float("-inf"), 6: -1.0}
    final.outputs[0].logprobs = [{token: SimpleNamespace(logprob=value) for token, value in values.items()}]
    assert sampled_tokens(final, Sampling(8, top_logprobs=2), str) == (
        SampledToken(TokenChoice("3", -2.0), (TokenChoice("4", -0.5), TokenChoice("6", -1.0))),
    )
    assert sampled_tokens(final, Sampling(8, top_logprobs=4), str)[0].top[-1] == TokenChoice("5", -9999.0)
    assert sampled_tokens(final, Sampling(8, top_logprobs=0), str)[0].top == ()
    assert sampled_tokens(final, Sampling(8), str) == ()


def test_penalties_reach_the_engine() -> None:
    """So that a completion's own parameters say what it was sampled from."""
    sampling = Sampling(max_tokens=3, repetition_penalty=1.2, presence_penalty=0.5, frequency_penalty=-0.25)
    params = sampling_params(sampling)
    assert (params.repetition_penalty, params.presence_penalty, params.frequency_penalty) == (1.2, 0.5, -0.25)
    plain = sampling_params(Sampling(max_tokens=3))
    assert (plain.repetition_penalty, plain.presence_penalty, plain.frequency_penalty) == (1.0, 0.0, 0.0)


def test_the_base_model_needs_no_adapter_and_a_version_is_its_own() -> None:
    """Version 0 is the base model; version 7 is the adapter `policy-v7` with the id 7."""
    assert adapter_request(0) is None
    request = adapter_request(7)
    assert request is not None
    assert (request.lora_name, request.lora_int_id) == ("policy-v7", 7)


def test_an_output_becomes_a_completion_of_its_version() -> None:
    """Token ids, their logprobs and the version are kept together."""
    completion = to_completion(output([3, 4]), REQUEST, 7, str, (-0.5, -1.5))
    assert (completion.token_ids, completion.logprobs) == ((3, 4), (-0.5, -1.5))
    assert (completion.finish_reason, completion.versions) == (FinishReason.STOP, VersionSpan(7, 7))
    assert completion.prompt_token_ids == (5, 6)
    assert completion.timing is None


def test_text_is_made_once_unless_stop_strings_had_it_made() -> None:
    """Without stop strings vLLM does not detokenise, and the token ids are decoded at the end."""
    stopping = replace(REQUEST, sampling=replace(REQUEST.sampling, stop=("###",)))
    final = output([3, 4], [-0.5, -1.5])
    final.outputs[0].text = "theirs"
    assert to_completion(final, REQUEST, 0, lambda ids: f"ours of {ids}", (-0.5, -1.5)).text == "ours of (3, 4)"
    assert to_completion(final, stopping, 0, str, (-0.5, -1.5)).text == "theirs"
    assert [sampling_params(request.sampling).detokenize for request in (REQUEST, stopping)] == [False, True]


def test_a_completion_says_how_long_its_tokens_took() -> None:
    """Three tokens with the last 0.05 s after the first have two gaps of 0.025 s; a single one has none."""
    stats = RequestStateStats(
        num_generation_tokens=3, first_token_latency=0.25, first_token_ts=100.0, last_token_ts=100.05
    )
    timing = to_completion(output([3, 4, 5], stats=stats), REQUEST, 0, str, (-0.5,) * 3).timing
    assert timing is not None
    assert [timing.first_token_s, timing.inter_token_s] == pytest.approx([0.25, 0.025])
    single = RequestStateStats(num_generation_tokens=1, first_token_latency=0.25, first_token_ts=9.0, last_token_ts=9.0)
    assert timing_of(single) == GenerationTiming(0.25, None)


def test_what_was_not_measured_is_no_timing() -> None:
    """No statistics, or none of any token, is None and not zero; a clock that was set back is no negative time."""
    assert timing_of(None) is None
    assert timing_of(RequestStateStats()) is None
    back = RequestStateStats(num_generation_tokens=1, first_token_latency=-3.0)
    assert timing_of(back) == GenerationTiming(0.0, None)


def test_one_backend_checks_every_schema_and_decodes_to_it(tmp_path: Path) -> None:
    """A schema comes to the same whichever was the first since the engine's start."""
    arguments = engine_arguments(str(tmp_path), EngineConfig(), num_adapters=0, adapter_rank=16, worker="w")
    assert arguments.structured_outputs_config.backend == "xgrammar"


@pytest.mark.parametrize(
    ("schema", "token_ids", "reason", "error"),
    [
        (None, [3], "stop", None),
        ('{"type":"object"}', [3], "length", None),
        ('{"minProperties":1}', [], "error", InvalidBrief),  # the engine process could not build a grammar
        ('{"minProperties":1}', [3], "error", EngineError),
        (None, [], "error", EngineError),
        ('{"type":"object"}', [], "abort", EngineError),
    ],
)
def test_a_schema_without_a_grammar_is_the_callers_mistake(
    schema: str | None, token_ids: list[int], reason: str, error: type[Exception] | None
) -> None:
    """Sending it again does not help, so it is no failure of the engine; any other early end is one."""
    ended = output(token_ids, None)
    ended.outputs[0].finish_reason = reason
    sampling = Sampling(max_tokens=3, schema=schema)
    if error is None:
        assert finished(ended, sampling) is ended
        return
    with pytest.raises(error):
        finished(ended, sampling)


def test_a_schema_that_is_not_taken_says_what_to_leave_out() -> None:
    """xgrammar's check names no keyword; other reasons are vLLM's own."""
    told = undecodable("The provided JSON schema contains features not supported by xgrammar.")
    assert told.field == "schema"
    assert "leave out multipleOf, uniqueItems" in told.message
    reason = "Failed to transform json schema into a grammar: [14:28:39] /project/cpp/a.cc:4944: enum array is empty\n"
    assert undecodable(reason).message.endswith("into a grammar: enum array is empty")


def test_a_generation_without_an_output_is_an_error() -> None:
    """vLLM ends such a stream without a word."""
    with pytest.raises(EngineError, match="no output"):
        finished(None, Sampling(max_tokens=3))


class _Llm:
    """vLLM's AsyncLLM, as far as a warm-up asks it."""

    errored = False

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def get_tokenizer(self) -> None:
        return None

    async def generate(self, prompt: Any, sampling: Any, request_id: str, **_: object) -> AsyncIterator[RequestOutput]:
        assert sampling.ignore_eos
        self.lengths.append(sampling.max_tokens)
        yield output([1])


@pytest.mark.parametrize(("device", "num_sizes"), [("cuda:0", 32), ("cpu", 0)])
async def test_a_gpu_runs_every_number_of_sequences_once(
    device: str, num_sizes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel's first launch waits for the trainer. A CPU loads none, and would take long."""
    first: list[str] = []

    async def sample(self: VllmEngine, request: GenerateRequest, version: int) -> None:
        first.append(request.request_id)

    monkeypatch.setattr(VllmEngine, "sample", sample)
    llm: Any = _Llm()
    facts: Any = SimpleNamespace(device=device)
    line = AnswerLine()
    engine = VllmEngine(llm, facts, EngineConfig(max_num_seqs=32, max_model_len=64, kv_cache_gib=0.5), line)
    await engine._warm_up()
    engine._watch.cancel()
    line.close()
    assert (first, llm.lengths) == (["warm-up"], list(range(num_sizes, 0, -1)))


@pytest.mark.parametrize(
    ("num_seqs", "longest", "lengths"),
    [
        (4, 100, [4, 3, 2, 1]),
        (8, 4, [4, 4, 3, 3, 2, 2, 1, 1]),
        (1, 100, [1]),
    ],
)
def test_replies_end_one_after_the_other(num_seqs: int, longest: int, lengths: list[int]) -> None:
    """By hand: where the context window is shorter, some end together."""
    assert reply_lengths(num_seqs, longest) == lengths


def test_many_sequences_take_no_more_steps_than_allowed() -> None:
    """Some seconds of a start, whatever an engine can run at once."""
    assert max(reply_lengths(4096, 8192)) == 512
