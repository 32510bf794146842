"""Arrivals, open and closed loops, and what is recorded of each request."""

import statistics
from pathlib import Path

import pytest

from service.bench.client import client_of, connections_to, instructions
from service.bench.generator import arrival_times, generate
from service.bench.load import Closed, LoadPlan, LoadResult, Poisson, PromptRecipe, Target, run_load
from service.serve import listening
from tests.service.bench.fake_server import FakeServer

RECIPE = PromptRecipe(("one", "two", "three"), 8, 0)


def plan(target: Target, arrivals: Poisson | Closed, **changes: object) -> LoadPlan:
    settings = {"max_tokens": 4, "temperature": 1.0, "warmup_s": 0.2, "duration_s": 1.0, "seed": 0, **changes}
    return LoadPlan(target, arrivals, RECIPE, **settings)  # type: ignore[arg-type]  # values of several types


async def carried_out(load: LoadPlan) -> LoadResult:
    connections = connections_to(load.target)
    try:
        return await generate(load, client_of(load, connections))
    finally:
        await connections.close()


def test_gaps_of_a_poisson_process_are_exponential() -> None:
    """At 50 a second for 200 s there are 10,000 +- 3 sqrt(10,000) arrivals; gaps have mean and deviation 1 / 50 s."""
    times = list(arrival_times(50.0, 200.0, seed=1))
    gaps = [after - before for before, after in zip([0.0, *times], times, strict=False)]
    assert abs(len(times) - 10_000) < 300
    assert statistics.fmean(gaps) == pytest.approx(0.02, rel=0.03)
    assert statistics.pstdev(gaps) == pytest.approx(0.02, rel=0.05)
    assert times == sorted(times)
    assert times[-1] < 200.0


def test_arrivals_depend_on_the_seed_alone() -> None:
    """Two loads of one seed are the same; another seed gives others."""
    assert list(arrival_times(5.0, 10.0, seed=7)) == list(arrival_times(5.0, 10.0, seed=7))
    assert list(arrival_times(5.0, 10.0, seed=7)) != list(arrival_times(5.0, 10.0, seed=8))


def test_instructions_differ_by_number_and_repeat_by_seed() -> None:
    """Every request has a text of its own, so that no prefix cache knows it; a second load has the same texts."""
    assert instructions(RECIPE, 0) != instructions(RECIPE, 1)
    assert instructions(RECIPE, 1) == instructions(RECIPE, 1)
    assert len(instructions(RECIPE, 0).split()) == 8


async def test_an_open_loop_sends_when_due_however_slow_the_server() -> None:
    """With replies of 0.5 s at 40 a second, about 20 are in flight; every due request of the window is recorded."""
    app = FakeServer(delay_s=0.5)
    async with listening(app) as url:
        result = await carried_out(plan(Target("content", url), Poisson(40.0)))
    due = [time_s for time_s in arrival_times(40.0, 1.2, seed=0) if time_s >= 0.2]
    assert len(result.exchanges) == len(due)
    assert app.most_in_flight > 10
    delays = [item.sent_s - item.scheduled_s for item in result.exchanges]
    assert statistics.median(delays) < 0.05
    assert min(delays) >= 0


async def test_a_closed_loop_keeps_its_clients_busy() -> None:
    """Three clients and replies of 0.1 s: never more than three in flight, about 30 replies in a second."""
    app = FakeServer(delay_s=0.1)
    async with listening(app) as url:
        result = await carried_out(plan(Target("content", url), Closed(3)))
    assert app.most_in_flight == 3
    assert 15 <= result.done_in_window <= 30
    assert result.tokens_in_window == 4 * result.done_in_window


async def test_requests_of_the_warm_up_are_sent_but_not_recorded() -> None:
    """Nothing that was due before the window is in the result."""
    app = FakeServer()
    async with listening(app) as url:
        result = await carried_out(plan(Target("content", url), Closed(1)))
    assert len(app.bodies) > len(result.exchanges)
    assert all(item.scheduled_s >= result.began_s for item in result.exchanges)


async def test_a_node_tells_its_own_times() -> None:
    """First token, inter-token time, version and token counts come out of the reply: 20 and 8 words are 28 tokens."""
    async with listening(FakeServer()) as url:
        result = await carried_out(plan(Target("content", url, key="secret"), Closed(1)))
    first = result.exchanges[0]
    assert (first.prompt_tokens, first.completion_tokens, first.finish_reason) == (28, 4, "length")
    assert (first.first_token_ms, first.inter_token_ms, first.policy_version) == (5.0, 2.0, 3)


async def test_a_stream_is_timed_at_the_client() -> None:
    """Four tokens 30 ms apart: the first after 30 ms or more, and the first and three gaps take 120 ms or more."""
    async with listening(FakeServer(delay_s=0.03)) as url:
        result = await carried_out(plan(Target("completions", url, model="m", stream=True), Closed(1)))
    first = result.exchanges[0]
    assert (first.status, first.completion_tokens, first.prompt_tokens) == (200, 4, 28)
    assert first.first_token_ms is not None
    assert first.inter_token_ms is not None
    assert first.first_token_ms >= 29
    assert first.inter_token_ms > 0
    assert 116 <= first.first_token_ms + 3 * first.inter_token_ms <= first.latency_s * 1000


async def test_a_failed_request_is_recorded_with_its_reason() -> None:
    """Every second answer is 503; half of the exchanges fail, and nothing is raised."""
    async with listening(FakeServer(fail_every=2)) as url:
        result = await carried_out(plan(Target("content", url), Closed(1)))
    failed = [item for item in result.exchanges if item.error is not None]
    assert {item.error for item in failed} == {"status 503"}
    assert abs(len(failed) - len(result.exchanges) / 2) <= 1


async def test_a_server_that_is_not_there_is_a_failure_too() -> None:
    """Each request fails with the reason that the system gave."""
    result = await carried_out(plan(Target("content", "http://127.0.0.1:9"), Poisson(20.0)))
    assert result.exchanges
    assert all("Error" in (item.error or "") and item.status is None for item in result.exchanges)
    assert result.done_in_window == 0


async def test_a_stop_file_ends_the_window(tmp_path: Path) -> None:
    """A load of an hour ends at once, and its rates are of the time that it had."""
    (tmp_path / "stop").touch()
    async with listening(FakeServer()) as url:
        load = plan(
            Target("content", url), Closed(1), duration_s=3600.0, warmup_s=0.0, stop_file=str(tmp_path / "stop")
        )
        result = await carried_out(load)
    assert result.duration_s < 1.0
    assert result.exchanges == []


async def test_a_load_runs_in_a_process_of_its_own() -> None:
    """The plan goes there and the result comes back whole."""
    async with listening(FakeServer()) as url:
        result = await run_load(plan(Target("content", url), Closed(2), duration_s=0.5))
    assert len(result.exchanges) > 2
    assert all(item.error is None for item in result.exchanges)
