"""A tenant's view of the node: briefs go out over HTTP, exchanges or failures come back."""

import asyncio
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import httpx
from pydantic import ValidationError

from service.demo.briefs import DemoBrief
from service.demo.failure import DemoFailed
from service.demo.results import Exchange, Failure
from service.http.content_reply import ContentReply

_TIMEOUT_S = 60.0
_AFTER_FAILURE_S = 0.5


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    @property
    def now_s(self) -> float:
        return time.perf_counter() - self._began


class TenantClient:
    """Sends briefs with one tenant's key. Use it as an async context manager."""

    def __init__(self, url: str, key: str, clock: Clock, *, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._clock = clock
        self._http = httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=_TIMEOUT_S, trust_env=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def write(self, brief: DemoBrief, *, temperature: float | None = None) -> Exchange | Failure:
        """Send one brief. Without ``temperature`` the node's own is used; 0 is greedy."""
        body = {**brief.body, "max_tokens": self._max_tokens, "temperature": temperature}
        sent_s = self._clock.now_s
        try:
            response = await self._http.post("/v1/content", json=body)
            latency_s = self._clock.now_s - sent_s
            if response.status_code != httpx.codes.OK:
                return Failure(brief, sent_s, f"{response.status_code}: {response.text}")
            reply = ContentReply.model_validate_json(response.content)
        except (httpx.HTTPError, ValidationError) as error:
            return Failure(brief, sent_s, f"{type(error).__name__}: {error}")
        verdict = reply.language_verdict
        return Exchange(
            brief,
            sent_s,
            latency_s,
            reply.text,
            verdict.verdict.value,
            verdict.share,
            reply.policy_version,
            reply.request_id,
        )

    async def say(self, request_id: str, *, edit: str, rating: int) -> None:
        """Post what became of a reply: the text that was published in its place, and stars.

        Raises:
            DemoFailed: the node did not keep it.
        """
        said = {"request_id": request_id, "rating": rating, "edit": {"text": edit, "published": True}}
        try:
            response = await self._http.post("/v1/feedback", json=said)
        except httpx.HTTPError as error:
            raise DemoFailed(f"feedback must be kept, got {type(error).__name__}: {error}") from error
        if response.status_code != httpx.codes.OK:
            raise DemoFailed(f"feedback must be kept, got {response.status_code}: {response.text}")


class Traffic:
    """Clients that send one brief after the other for the length of an async block."""

    def __init__(self, client: TenantClient, briefs: Sequence[DemoBrief], *, num_clients: int) -> None:
        self._client = client
        self._briefs = briefs
        self._num_clients = num_clients
        self._stopping = asyncio.Event()
        self._answered = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []
        self.answers: list[Exchange | Failure] = []
        """In the order in which they came."""

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._send_on(number)) for number in range(self._num_clients)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits for the requests in flight; cancels them when the block failed."""
        self._stopping.set()
        if error is not None:
            for task in self._tasks:
                task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        if error is None:
            for outcome in ended:
                if outcome is not None:
                    raise outcome

    async def more_replies(self, version: int, count: int) -> None:
        """Return after so many more replies of a policy, or once a request has failed."""
        enough = self._num_replies(version) + count
        async with self._answered:
            await self._answered.wait_for(lambda: self._num_replies(version) >= enough or self._has_failed())

    def _num_replies(self, version: int) -> int:
        return sum(isinstance(answer, Exchange) and answer.policy_version == version for answer in self.answers)

    def _has_failed(self) -> bool:
        return any(isinstance(answer, Failure) for answer in self.answers)

    async def _send_on(self, number: int) -> None:
        turn = number
        while not self._stopping.is_set():
            answer = await self._client.write(self._briefs[turn % len(self._briefs)])
            async with self._answered:
                self.answers.append(answer)
                self._answered.notify_all()
            turn += self._num_clients
            if isinstance(answer, Failure):
                await asyncio.sleep(_AFTER_FAILURE_S)
