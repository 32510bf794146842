"""Says where a thread of the engine process is held when a call takes far longer than it ever should.

Code of the engine that waits for the device, unseen, waits for the trainer too: for memory, for pinned memory, for a
kernel's first launch. Live requests then stand still, and nothing else would say why.
"""

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

_LONG_S = 0.2
"""A step takes a few milliseconds, a micro-batch of the trainer's some tenths of a second at most."""
_POLL_S = 0.05
_FRAMES = 12


@dataclass(slots=True)
class _Call:
    name: str
    since_s: float
    reported: bool = False


class StallWatch:
    """Watches calls of any thread."""

    def __init__(
        self,
        *,
        long_s: float = _LONG_S,
        clock: Callable[[], float] = time.perf_counter,
        logger: logging.Logger | None = None,
    ) -> None:
        self._long_s, self._clock = long_s, clock
        self._logger = logger or logging.getLogger(__name__)
        self._calls: dict[int, _Call] = {}

    def start(self) -> None:
        """Look several times a second for as long as the process lives."""
        threading.Thread(target=self._look_on, name="coloq-stall-watch", daemon=True).start()

    @contextmanager
    def call(self, name: str) -> Generator[None]:
        """The block is a call that should be over soon."""
        thread = threading.get_ident()
        call = _Call(name, self._clock())
        self._calls[thread] = call
        try:
            yield
        finally:
            self._calls.pop(thread, None)
            if call.reported:
                duration_s = self._clock() - call.since_s
                self._logger.warning("%s call=%s duration_s=%.2f", "engine_call_ended", name, duration_s)

    def look(self) -> None:
        """Report each call that has become long, once, with its thread's innermost frames."""
        now_s = self._clock()
        for thread, call in list(self._calls.items()):
            if call.reported or now_s - call.since_s < self._long_s:
                continue
            call.reported = True
            frame = sys._current_frames().get(thread)
            stack = "" if frame is None else "".join(traceback.format_stack(frame)[-_FRAMES:])
            so_far_s = now_s - call.since_s
            self._logger.warning("%s call=%s so_far_s=%.2f, in\n%s", "engine_call_long", call.name, so_far_s, stack)

    def _look_on(self) -> None:
        while True:
            time.sleep(_POLL_S)
            self.look()
