"""A chat that fails in the middle."""

import asyncio
from collections.abc import Sequence

from agent.chat import ChatReply, Dialogue
from agent.completion import Sampling
from agent.errors import EngineDead
from agent.ports import Delta, Listener
from service.http.fakes import FakeChat


class BrokenChat(FakeChat):
    """Tells a word, and raises ``error``."""

    async def answer(
        self,
        dialogue: Dialogue,
        sampling: Sampling,
        *,
        request_id: str,
        num_choices: int = 1,
        listeners: Sequence[Listener] = (),
        wait_s: float | None = None,
    ) -> ChatReply:
        listeners[0](Delta("Once "))
        await asyncio.sleep(0.02)
        raise self.error or EngineDead("gone")
