"""`POST /v1/chat/completions` with `stream`: chunks of each choice, then how each ended, then the tokens if asked for.

data: {… "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
data: {… "choices": [{"index": 0, "delta": {"content": "Our new bell"}}]}
data: {… "choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "language_verdict": "pass"}]}
data: {… "choices": [], "usage": {…}}                                      with stream_options.include_usage
data: [DONE]
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

from starlette.requests import Request

from agent.chat import ChatReply, Dialogue
from agent.completion import SampledToken, Sampling
from agent.ports import Delta as EngineDelta
from service.http.disconnect import while_connected
from service.http.handlers import log_failure, path_of
from service.http.openai.errors import openai_error
from service.http.openai.reply import ChatChunk, ChunkChoice, Delta, Logprobs, finish_reason_of, usage_of
from service.http.problems import problem_of
from service.http.sse import HEARTBEAT, EventStream, Feed, cancelled, event
from service.http.state import AppParts, request_id_of


@dataclass(frozen=True, slots=True)
class _Piece:
    index: int
    text: str
    tokens: tuple[SampledToken, ...]


@dataclass(frozen=True, slots=True)
class ChatStream:
    """One streamed answer."""

    request_id: str
    model: str
    """As it was asked for: the version that answers is known at the end."""
    created: int
    num_choices: int
    logprobs: bool
    include_usage: bool

    async def open(self, dialogue: Dialogue, sampling: Sampling, request: Request, parts: AppParts) -> EventStream:
        """The response, once there is something to send.

        Raises:
            ColoqError: the request failed before that.
            ClientGone: the caller hung up before that.
        """
        feed: Feed[_Piece] = Feed()
        work = asyncio.create_task(
            parts.node.chat.answer(
                dialogue,
                sampling,
                request_id=self.request_id,
                num_choices=self.num_choices,
                listeners=[partial(_tell, feed, index) for index in range(self.num_choices)],
            )
        )
        try:
            await while_connected(request.receive, feed.opened(work))
        except BaseException:
            await cancelled(work)
            raise
        return EventStream(self._events(feed, work, request, parts.config.agent.hold_s), work, {})

    async def _events(
        self, feed: Feed[_Piece], work: "asyncio.Task[ChatReply]", request: Request, silence_s: float
    ) -> AsyncIterator[bytes]:
        try:
            yield self._chunk([ChunkChoice(index=index, delta=_BEGIN) for index in range(self.num_choices)])
            async for batch in feed.batches(work, silence_s=silence_s):
                yield b"".join(self._chunk([self._part(piece)]) for piece in _merged(batch)) or HEARTBEAT
            yield self._end(work.result())
        except Exception as error:  # noqa: BLE001 - the stream has begun, so its last event is all that can tell
            log_failure(error)
            problem = problem_of(error, instance=path_of(request), request_id=request_id_of(request))
            yield event(openai_error(problem).model_dump_json())

    def _part(self, piece: _Piece) -> ChunkChoice:
        logprobs = Logprobs.of(piece.tokens) if self.logprobs else None
        return ChunkChoice(index=piece.index, delta=Delta(content=piece.text), logprobs=logprobs)

    def _end(self, reply: ChatReply) -> bytes:
        ends = [
            ChunkChoice(
                index=index,
                delta=Delta(),
                finish_reason=finish_reason_of(choice),
                language_verdict=choice.reply.verdict.verdict,
            )
            for index, choice in enumerate(reply.choices)
        ]
        chunks = [self._chunk([end]) for end in ends]
        if self.include_usage:
            chunks.append(self._chunk([], reply))
        return b"".join([*chunks, event("[DONE]")])

    def _chunk(self, choices: list[ChunkChoice], reply: ChatReply | None = None) -> bytes:
        usage = usage_of(reply) if reply is not None else None
        chunk = ChatChunk(id=self.request_id, created=self.created, model=self.model, choices=choices, usage=usage)
        return event(chunk.model_dump_json(exclude_none=True))


_BEGIN = Delta(role="assistant", content="")


def _tell(feed: Feed[_Piece], index: int, delta: EngineDelta) -> None:
    if delta.text or delta.tokens:
        feed.put(_Piece(index, delta.text, delta.tokens))


def _merged(batch: list[_Piece]) -> list[_Piece]:
    """One piece for each choice that has something new."""
    by_index: dict[int, _Piece] = {}
    for piece in batch:
        before = by_index.get(piece.index, _Piece(piece.index, "", ()))
        by_index[piece.index] = _Piece(piece.index, before.text + piece.text, before.tokens + piece.tokens)
    return list(by_index.values())
