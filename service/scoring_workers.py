"""Worker processes that judge tuning's replies: a PartsDelegate.

    panel (any thread) ─► chunks, one for each worker ─► processes ─► joined

They are started by the first replies. A worker that dies takes the others of its pool with it: the replies at hand are
then judged where they came from, and the next ones start a new pool. After the third time there are no workers any
more.
"""

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

import structlog

from rewards.parts import JudgedParts, PartsRequest, Worker, joined
from trainer.child_process import live_as_child

log = structlog.get_logger(__name__)

_CORES_PER_WORKER, _MOST_WORKERS = 4, 4
_MOST_LOST = 3
_NICE = 5
"""Workers come after the node's own processes where cores are short."""


def num_workers(configured: int | None, num_cores: int | None = None) -> int:
    """How many there are: as configured, or one for each four cores, at most four."""
    if configured is not None:
        return configured
    return min((num_cores or os.cpu_count() or 1) // _CORES_PER_WORKER, _MOST_WORKERS)


class ScoringWorkers:
    """A pool of them."""

    def __init__(self, count: int, extra: Mapping[str, str]) -> None:
        """``extra`` are the stateless judges of `rewards.extra`, by name."""
        self._count, self._extra = count, dict(extra)
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None
        self._num_lost = 0
        self._closed = False

    def judge(self, requests: Sequence[PartsRequest]) -> JudgedParts | None:
        """See PartsDelegate.judge."""
        pool = self._opened()
        if pool is None:
            return None
        size = -(-len(requests) // self._count)
        chunks = [requests[first : first + size] for first in range(0, len(requests), size)]
        try:
            return joined([future.result() for future in [pool.submit(_judge, chunk) for chunk in chunks]])
        except (BrokenProcessPool, RuntimeError) as error:  # RuntimeError: shut down meanwhile
            self._lose(pool, str(error))
            return None

    def close(self) -> None:
        """End the processes; whatever is asked from now on is not judged."""
        self._closed = True
        pool = self._pool
        if pool is not None:
            self._drop(pool)

    def _opened(self) -> ProcessPoolExecutor | None:
        with self._lock:
            if self._closed:
                return None
            if self._pool is None:
                self._pool = ProcessPoolExecutor(
                    self._count, mp_context=get_context("spawn"), initializer=_start, initargs=(self._extra,)
                )
            return self._pool

    def _lose(self, pool: ProcessPoolExecutor, reason: str) -> None:
        with self._lock:
            if self._pool is not pool:  # another thread came first
                return
            self._num_lost += 1
            self._closed = self._closed or self._num_lost >= _MOST_LOST
        log.warning("scoring_workers_lost", reason=reason, given_up=self._closed)
        self._drop(pool)

    def _drop(self, pool: ProcessPoolExecutor) -> None:
        with self._lock:
            if self._pool is pool:
                self._pool = None
        pool.shutdown(wait=False, cancel_futures=True)


_worker: Worker | None = None
"""Of this process, in a worker."""


def _start(extra: Mapping[str, str]) -> None:
    """Make this process a worker."""
    global _worker  # noqa: PLW0603 - a process is one worker
    live_as_child()
    os.nice(_NICE)
    _worker = Worker(extra)


def _judge(requests: Sequence[PartsRequest]) -> JudgedParts:
    assert _worker is not None  # _start came first
    return _worker.judge(requests)
