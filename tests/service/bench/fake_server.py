"""A server that answers like a node or like vLLM, after a fixed time, and remembers what was asked: no model."""

import asyncio
import json
import time
from typing import Any


class FakeServer:
    """An ASGI app; ``fail_every`` answers every so-manieth request with 503."""

    def __init__(self, *, delay_s: float = 0.02, tokens_per_word: int = 1, fail_every: int = 0) -> None:
        self.delay_s, self.tokens_per_word, self.fail_every = delay_s, tokens_per_word, fail_every
        self.bodies: list[dict[str, Any]] = []
        self.arrived_s: list[float] = []
        self.in_flight, self.most_in_flight = 0, 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.arrived_s.append(time.monotonic())
        try:
            body = await _read(receive)
            self.bodies.append(body)
            if self.fail_every and len(self.bodies) % self.fail_every == 0:
                await _answer(send, 503, {})
            elif body.get("stream"):
                await self._stream(body, send)
            else:
                await asyncio.sleep(self.delay_s)
                await _answer(send, 200, self._reply(body))
        finally:
            self.in_flight -= 1

    def prompt_tokens(self, body: dict[str, Any]) -> int:
        """A template of 20 tokens, and the words."""
        text = body.get("instructions") or body["prompt"]
        return 20 + self.tokens_per_word * len(text.split())

    def _reply(self, body: dict[str, Any]) -> dict[str, Any]:
        usage = {"prompt_tokens": self.prompt_tokens(body), "completion_tokens": body["max_tokens"]}
        if "instructions" in body:
            timing = {"duration_ms": 20.0, "first_token_ms": 5.0, "inter_token_ms": 2.0}
            return {"usage": usage, "timing": timing, "finish_reason": "length", "policy_version": 3}
        return {"usage": usage, "choices": [{"finish_reason": "length"}]}

    async def _stream(self, body: dict[str, Any], send: Any) -> None:
        """First token after ``delay_s``, then one every ``delay_s``."""
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for number in range(1, body["max_tokens"] + 1):
            await asyncio.sleep(self.delay_s)
            reason = "length" if number == body["max_tokens"] else None
            await send(_event({"choices": [{"text": "a", "finish_reason": reason}], "usage": None}))
        await send(_event({"choices": [], "usage": self._reply(body)["usage"]}))
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def _read(receive: Any) -> dict[str, Any]:
    content = b""
    while True:
        message = await receive()
        content += message.get("body", b"")
        if not message.get("more_body"):
            body: dict[str, Any] = json.loads(content)
            return body


async def _answer(send: Any, status: int, reply: dict[str, Any]) -> None:
    content = json.dumps(reply).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def _event(data: dict[str, Any]) -> dict[str, Any]:
    return {"type": "http.response.body", "body": f"data: {json.dumps(data)}\n\n".encode(), "more_body": True}
