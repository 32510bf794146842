"""Worker processes judge as the panel itself does, and losing them loses nothing."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psutil
import pytest
from structlog.testing import capture_logs

from agent.brief import Brief, Kind
from agent.completion import FinishReason
from agent.contract import LanguageContract
from agent.language import FastTextDetector
from rewards.panel import Panel, build_panel
from rewards.score import Sample, Score
from service.bench.peers.reward import REWARDS, SPREAD
from service.scoring_workers import ScoringWorkers, num_workers

TEXTS = (
    "Fresh bread every morning, baked by hand in our small shop by the river.",
    "Frisches Brot, jeden Morgen von Hand gebacken in unserem kleinen Laden am Fluss.",
    "Bread bread bread bread bread bread bread bread bread bread bread bread.",
    "As an AI language model I cannot write that.",
    "…",
)


def samples() -> list[Sample]:
    brief = Brief("acme", Kind.CREATE, "en", instructions="Announce our bread.", max_words=12)
    return [Sample(brief, text, FinishReason.STOP, num_tokens=20) for text in TEXTS]


def panel() -> Panel:
    return build_panel(REWARDS, (), LanguageContract(FastTextDetector()))


@pytest.fixture(scope="module")
def workers() -> Iterator[ScoringWorkers]:
    pool = ScoringWorkers(2, REWARDS.extra)
    yield pool
    pool.close()


def is_worker(child: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(child.cmdline())
    except psutil.NoSuchProcess:  # it has ended, and maybe nobody has waited for it yet
        return False


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if is_worker(child)]


def test_workers_say_what_the_panel_says(workers: ScoringWorkers) -> None:
    """Scores and parts, a stateless judge of one's own among them, in the order of the replies."""
    alone, helped = panel(), panel()
    assert helped.stateless == {SPREAD}
    helped.delegate(workers)
    assert helped.score(samples()) == alone.score(samples())
    assert helped.score(samples()[:1]) == alone.score(samples()[:1])
    assert helped.score([]) == []
    assert len(children()) == 2


def test_a_live_requests_replies_are_judged_where_it_waits(workers: ScoringWorkers) -> None:
    """Nobody who waits for a reply waits for processes to start, or behind a tuning run."""
    closed = ScoringWorkers(2, {})
    helped = panel()
    helped.delegate(closed)
    assert helped.live.score(samples()) == panel().score(samples())
    assert closed._pool is None


def test_threads_share_them(workers: ScoringWorkers) -> None:
    """Each gets its own replies' scores."""
    helped, expected = panel(), panel().score(samples())
    helped.delegate(workers)
    seen: dict[int, object] = {}

    def score(number: int) -> None:
        seen[number] = helped.score(samples()[number:])

    threads = [threading.Thread(target=score, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {number: expected[number:] for number in range(4)}


def test_a_worker_that_is_killed_loses_no_reply() -> None:
    """The replies at hand are judged here, and the next ones by new processes."""
    pool = ScoringWorkers(2, REWARDS.extra)
    helped, expected = panel(), panel().score(samples())
    helped.delegate(pool)
    before = {child.pid for child in children()}
    assert helped.score(samples()) == expected
    first = {child.pid for child in children()} - before
    os.kill(min(first), signal.SIGKILL)
    deadline = time.monotonic() + 30
    while not {child.pid for child in children()} - before - first:
        assert time.monotonic() < deadline, "no new pool"
        assert helped.score(samples()) == expected
    pool.close()
    assert helped.score(samples()) == expected


def test_workers_that_keep_dying_are_given_up() -> None:
    """A judge that cannot be made there ends each pool at once; after three of them replies are judged here alone."""
    pool = ScoringWorkers(1, {SPREAD: "tests.service.test_scoring_workers:Absent"})
    helped, expected = panel(), panel().score(samples())
    helped.delegate(pool)
    with capture_logs() as logs:
        for _ in range(5):
            assert helped.score(samples()) == expected
    assert [entry["given_up"] for entry in logs if entry["event"] == "scoring_workers_lost"] == [False, False, True]


def test_workers_end_when_their_node_is_killed() -> None:
    """kill -9 leaves nobody to tell them, and none of them stays."""
    command = [sys.executable, "-m", "tests.service.test_scoring_workers"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        workers = [psutil.Process(int(pid)) for pid in node.stdout.readline().split()]
        node.kill()
    assert len(workers) == 2
    assert psutil.wait_procs(workers, timeout=10)[1] == []


def test_a_judge_that_fails_there_is_ungradable_as_it_would_be_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is the judge's own, and the failure is counted."""
    pool = ScoringWorkers(1, {SPREAD: "tests.service.test_scoring_workers:Failing"})
    helped = panel()
    helped.delegate(pool)
    (answer,) = helped.score(samples()[:1])
    pool.close()
    assert not isinstance(answer, Score)
    assert answer.reason == "spread: ValueError: no"
    assert helped.failures == {SPREAD: 1}


class Failing:
    """A judge that can judge nothing."""

    name, revision, stateless = SPREAD, "1", True

    def score(self, samples: list[Sample]) -> list[Score]:
        raise ValueError("no")


@pytest.mark.parametrize(
    ("configured", "num_cores", "expected"),
    [(None, 1, 0), (None, 2, 0), (None, 4, 1), (None, 8, 2), (None, 16, 4), (None, 64, 4), (0, 64, 0), (7, 2, 7)],
)
def test_there_is_one_for_each_four_cores(configured: int | None, num_cores: int, expected: int) -> None:
    """At most four; a number that is configured goes before it."""
    assert num_workers(configured, num_cores) == expected


if __name__ == "__main__":  # a node with two workers, until it is killed
    helped = panel()
    helped.delegate(ScoringWorkers(2, REWARDS.extra))
    helped.score(samples())
    print(*(child.pid for child in children()), flush=True)  # noqa: T201 - for the test above
    time.sleep(60)
