"""The node's side of engine_child.py: a service.supervised_engine.EngineProcess without a model, in a process."""

import asyncio
import itertools
import json
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.completion import Completion, FinishReason, VersionSpan
from agent.errors import EngineDead
from agent.ports import GenerateRequest

LONGEST_DELAY_S = 0.06


@dataclass(frozen=True)
class Facts:
    kv_cache_tokens: int = 65_536


class CrashEngine:
    """One child process, from its start to its end."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.facts = Facts()
        self._process = process
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Future[str]] = {}
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def launch(cls, started: Callable[[int], None]) -> "CrashEngine":
        """``started`` hears of the process's id."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-S",
            str(Path(__file__).with_name("engine_child.py")),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        started(process.pid)
        return cls(process)

    @property
    def alive(self) -> bool:
        return not self._reading.done()

    async def died(self) -> None:
        """See EngineProcess."""
        await asyncio.wait({self._reading})

    async def stop(self) -> None:
        """See EngineProcess."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self.died()

    async def sample(self, request: GenerateRequest, version: int) -> Completion:
        """See EngineProcess. The text names the request."""
        text = await self._ask(request.request_id)
        return Completion(
            text=text,
            prompt_token_ids=request.prompt_token_ids,
            token_ids=tuple(map(ord, text)),
            logprobs=(-0.5,) * len(text),
            sampling=request.sampling,
            finish_reason=FinishReason.STOP,
            versions=VersionSpan(version, version),
        )

    async def call(self, method: str, *args: Any) -> Any:
        """See EngineProcess; there is no worker to call."""
        raise NotImplementedError(method)

    async def answered(self, ticket: int, within_s: float) -> None:
        """See EngineProcess; there is no learner."""
        raise NotImplementedError(ticket)

    async def _ask(self, name: str) -> str:
        if not self.alive:
            raise EngineDead("the engine process is gone")
        number, answer = next(self._ids), asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        request = {"id": number, "name": name, "delay_s": random.uniform(0.0, LONGEST_DELAY_S)}
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            text: str = await answer
            return text
        finally:
            del self._waiting[number]

    async def _read(self) -> None:
        """Hand answers out until the process is gone; who still waits then hears of its death."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            reply = json.loads(line)
            if (answer := self._waiting.get(reply["id"])) is not None and not answer.done():
                answer.set_result(reply["text"])
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(EngineDead("the engine process died"))
