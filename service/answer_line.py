"""The front process's end of trainer.answer_line: hears which of the learner's answers are there."""

import asyncio
import os
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

from trainer.answer_line import TICKET_BYTES

_LONGEST_FOLDER_BYTES = 70
"""sockaddr_un holds 108 bytes on Linux, 104 on macOS, and what is put behind it is about 23 long."""
_MOST_HEARD = 1024
"""Answers that nobody has waited for: those of calls that were given up."""


class AnswerLine:
    """Of one engine process. Open it and use it on one event loop."""

    def __init__(self) -> None:
        # 0700: others cannot write into it. A socket's path must be short, which a temporary folder's need not be.
        long = len(os.fsencode(tempfile.gettempdir())) > _LONGEST_FOLDER_BYTES
        self._folder = tempfile.TemporaryDirectory(prefix="coloq-", dir="/tmp" if long else None)
        self.address = str(Path(self._folder.name) / "answers")
        """For the engine process."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(self.address)
        self._heard: dict[int, None] = {}
        self._waiting: dict[int, asyncio.Event] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self._read)

    def close(self) -> None:
        """Hear no more; a second time changes nothing."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._folder.cleanup()

    async def heard(self, ticket: int, within_s: float) -> None:
        """Return when word has come that the ticket's answer is there, or after ``within_s``."""
        if ticket not in self._heard:
            event = self._waiting.setdefault(ticket, asyncio.Event())
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(within_s):
                        await event.wait()
            finally:
                self._waiting.pop(ticket, None)
        self._heard.pop(ticket, None)

    def _read(self) -> None:
        while True:
            try:
                ticket = int.from_bytes(self._socket.recv(TICKET_BYTES))
            except BlockingIOError:
                return
            self._heard[ticket] = None
            if len(self._heard) > _MOST_HEARD:
                del self._heard[next(iter(self._heard))]
            if ticket in self._waiting:
                self._waiting[ticket].set()
