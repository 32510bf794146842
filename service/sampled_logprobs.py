"""Reads finished requests' log-probabilities from the engine process, several in one call."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from agent.errors import EngineError
from trainer.sampled import SampledRow, logprobs_of

Take = Callable[[list[str]], Awaitable[bytes]]
"""Asks the engine process for what requests sampled."""
_DECODER = msgspec.msgpack.Decoder(list[SampledRow | None])


class LogprobReader:
    """While one call is under way, requests that finish wait for the next."""

    def __init__(self, take: Take) -> None:
        self._take = take
        self._waiting: dict[str, asyncio.Future[SampledRow | None]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def read(self, request_id: str, token_ids: Sequence[int]) -> tuple[float, ...]:
        """Log-probabilities of a finished request's tokens.

        Raises:
            EngineError: the engine does not have them.
        """
        row = self._waiting[request_id] = asyncio.get_running_loop().create_future()
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_all(), name="logprobs")
        sampled = await row
        if sampled is None:
            raise EngineError(f"every token needs a logprob, got {len(token_ids)} tokens of an unknown request")
        return logprobs_among(sampled, token_ids)

    async def _read_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, {}
            try:
                rows = _DECODER.decode(await self._take(list(batch)))
            except Exception as error:  # noqa: BLE001 - each waiting request raises it
                for future in batch.values():
                    if not future.done():
                        future.set_exception(error)
                continue
            for future, row in zip(batch.values(), rows, strict=True):
                if not future.done():
                    future.set_result(row)


def logprobs_among(sampled: SampledRow, token_ids: Sequence[int]) -> tuple[float, ...]:
    """Those of a reply's tokens among what its request sampled. Raises EngineError when one is missing."""
    try:
        return tuple(logprobs_of(sampled, token_ids))
    except ValueError as error:
        raise EngineError(f"every token needs a logprob: {error}") from error
