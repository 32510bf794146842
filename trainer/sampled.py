"""What the engine sampled, with its log-probability, kept by request in the engine process until it is asked for.

    a step's output ──► note: token and log-probability of each row stay here, vLLM hands on the tokens alone
    a reply's end   ◄── hand_over: all of its tokens and log-probabilities at once
    a reply that was ended elsewhere ◄── take: the same, when it is asked for

vLLM would send three arrays for each token of each request to the front process, whose event loop would read them.
Knows nothing of vLLM but the shape of a step's output.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

_MOST_KEPT = 8192
"""Requests that nobody asks for were aborted; the oldest of them go first."""
_RANDOM_SUFFIX_LENGTH = 8
_SENT_AS = "coloq_sampled"


class StepLogprobs(Protocol):
    """vLLM's LogprobsLists; the sampled token is in the first column."""

    @property
    def logprobs(self) -> npt.NDArray[np.float32]:
        """[rows, 1 + top tokens that some request asked for]."""
        ...

    @property
    def cu_num_generated_tokens(self) -> Sequence[int] | None:
        """First row of each request; None where each has one row."""
        ...


class StepOutput(Protocol):
    """vLLM's ModelRunnerOutput."""

    req_ids: list[str]
    sampled_token_ids: list[list[int]]
    """Empty for a request whose prompt is not read to its end."""
    logprobs: StepLogprobs | None


class LastOutput(Protocol):
    """vLLM's EngineCoreOutput with which a reply ends; its parameters come with the finished output as they are."""

    request_id: str
    kv_transfer_params: dict[str, Any] | None


class SampledRow(msgspec.Struct, frozen=True):
    """What one request has sampled, in order."""

    token_ids: list[int]
    logprobs: list[float]


_ENCODER, _DECODER = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(SampledRow)


@dataclass(slots=True)
class _Noted:
    request_id: str
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class SampledTokens:
    """By request. One thread notes and takes."""

    def __init__(self, *, most_kept: int = _MOST_KEPT) -> None:
        self._most_kept = most_kept
        self._rows: OrderedDict[str, _Noted] = OrderedDict()

    def note(self, output: StepOutput) -> None:
        """Keep a step's log-probabilities, and take them out of it unless a request asked for other tokens' too."""
        logprobs = output.logprobs
        if logprobs is None:
            return
        values = logprobs.logprobs[:, 0].tolist()
        firsts = logprobs.cu_num_generated_tokens
        for index, (request_id, token_ids) in enumerate(zip(output.req_ids, output.sampled_token_ids, strict=True)):
            if token_ids:
                row = self._row(request_id)
                first = index if firsts is None else firsts[index]
                row.token_ids += token_ids
                row.logprobs += values[first : first + len(token_ids)]
        if logprobs.logprobs.shape[1] == 1:
            output.logprobs = None

    def take(self, request_ids: Sequence[str]) -> list[SampledRow | None]:
        """What these requests sampled; None for an unknown one. They are forgotten then."""
        rows = [self._rows.pop(request_id, None) for request_id in request_ids]
        return [None if row is None else SampledRow(row.token_ids, row.logprobs) for row in rows]

    def hand_over(self, output: LastOutput) -> None:
        """Send what was noted of a reply along with its end, and forget it."""
        (row,) = self.take([_given_name(output.request_id)])
        if row is not None:
            output.kv_transfer_params = {**(output.kv_transfer_params or {}), _SENT_AS: _ENCODER.encode(row)}

    def _row(self, request_id: str) -> _Noted:
        """A later request with a name that was used before begins anew."""
        name = _given_name(request_id)
        row = self._rows.get(name)
        if row is None or row.request_id != request_id:
            self._rows[name] = row = _Noted(request_id)
            while len(self._rows) > self._most_kept:
                self._rows.popitem(last=False)
        return row


def handed_over(parameters: Mapping[str, Any] | None) -> SampledRow | None:
    """What came with a reply's end; None where nothing did."""
    sent = (parameters or {}).get(_SENT_AS)
    return None if sent is None else _DECODER.decode(sent)


def _given_name(request_id: str) -> str:
    """The name that the caller gave: vLLM adds a random suffix of its own."""
    name, dash, suffix = request_id.rpartition("-")
    return name if dash and len(suffix) == _RANDOM_SUFFIX_LENGTH else request_id


def logprobs_of(row: SampledRow, token_ids: Sequence[int]) -> list[float]:
    """Log-probabilities of a reply's tokens.

    The engine may sample a token that it then discards: one behind the last, or one before a request was preempted.
    Those are stepped over.

    Raises:
        ValueError: the tokens are not what was sampled.
    """
    if row.token_ids[: len(token_ids)] == list(token_ids):
        return row.logprobs[: len(token_ids)]
    sampled = iter(zip(row.token_ids, row.logprobs, strict=True))
    found = [next((value for token, value in sampled if token == wanted), None) for wanted in token_ids]
    if any(value is None for value in found):
        raise ValueError(f"{len(token_ids)} tokens must be among the {len(row.token_ids)} that were sampled")
    return [value for value in found if value is not None]
