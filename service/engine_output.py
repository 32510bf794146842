"""What vLLM answers, as completions, text and times of ours."""

import re
from collections.abc import Callable, Sequence

from vllm.outputs import RequestOutput
from vllm.v1.metrics.stats import RequestStateStats

from agent.completion import (
    Completion,
    FinishReason,
    GenerationTiming,
    SampledToken,
    Sampling,
    TokenChoice,
    VersionSpan,
)
from agent.errors import EngineError, InvalidBrief
from agent.ports import GenerateRequest

_PLACE_IN_SOURCE = re.compile(r"\[\d\d:\d\d:\d\d\] \S+:\d+: ")
"""Of xgrammar's own code, in its messages."""
LEAST_LOGPROB = -9999.0
"""Shown for a token that could not have been sampled: JSON has no infinity. vLLM's own server shows the same."""


def undecodable(reason: str) -> InvalidBrief:
    """The caller's mistake of a schema that vLLM does not take, for a ``reason`` of its own words."""
    if "not supported by xgrammar" in reason:  # it does not say which
        reason = (
            "leave out multipleOf, uniqueItems, contains, a second schema of allOf, a length beside a pattern or"
            " format, and rare formats"
        )
    return InvalidBrief("schema", f"the engine cannot decode to it: {_PLACE_IN_SOURCE.sub('', reason).strip()[:200]}")


def finished(final: RequestOutput | None, sampling: Sampling) -> RequestOutput:
    """The output of a generation that ended as it should.

    Raises:
        InvalidBrief: not a token came, for want of a grammar: some schemas are refused only when the engine process
            builds theirs, and it tells no reason.
        EngineError: it ended early for another reason.
    """
    reason = final.outputs[0].finish_reason if final is not None else "no output"
    if final is not None and reason in ("stop", "length"):
        return final
    if final is not None and sampling.schema is not None and reason == "error" and not final.outputs[0].token_ids:
        raise undecodable("no grammar can be built of it")
    raise EngineError(f"generation ended early: {reason}")


def to_completion(
    final: RequestOutput,
    request: GenerateRequest,
    version: int,
    decode: Callable[[Sequence[int]], str],
    logprobs: tuple[float, ...],
) -> Completion:
    """vLLM's finished output as a Completion, with its tokens' ``logprobs``; ``decode`` makes the text of one that was
    not detokenised."""
    output = final.outputs[0]
    token_ids = tuple(output.token_ids)
    detokenised = request.sampling.stop or request.listener is not None
    return Completion(
        text=output.text if detokenised else decode(token_ids),
        prompt_token_ids=request.prompt_token_ids,
        token_ids=token_ids,
        logprobs=logprobs,
        sampling=request.sampling,
        finish_reason=FinishReason(output.finish_reason),
        versions=VersionSpan(version, version),
        timing=timing_of(final.metrics),
    )


def joined(parts: Sequence[RequestOutput]) -> RequestOutput:
    """The last of a stream's outputs, with the text and tokens of all."""
    final = parts[-1]
    if len(parts) > 1:
        outputs = [part.outputs[0] for part in parts]
        whole = final.outputs[0]
        whole.text = "".join(output.text for output in outputs)
        whole.token_ids = [token for output in outputs for token in output.token_ids]
        whole.logprobs = [entry for output in outputs for entry in output.logprobs or ()]
    return final


def sampled_tokens(part: RequestOutput, sampling: Sampling, decode: Callable[[int], str]) -> tuple[SampledToken, ...]:
    """The tokens of an output as text, when they are asked for; ``decode`` makes the text of one."""
    if sampling.top_logprobs is None:
        return ()

    def choice(token_id: int, logprob: float) -> TokenChoice:
        return TokenChoice(decode(token_id), max(logprob, LEAST_LOGPROB))

    output = part.outputs[0]
    tokens = []
    for token_id, entry in zip(output.token_ids, output.logprobs or (), strict=True):
        ranked = sorted(entry.items(), key=lambda item: -item[1].logprob)[: sampling.top_logprobs]
        top = tuple(choice(other, candidate.logprob) for other, candidate in ranked)
        tokens.append(SampledToken(choice(token_id, entry[token_id].logprob), top))
    return tuple(tokens)


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
