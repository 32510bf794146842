"""The loop around the controller: what it asks the worker, what it sets, shows and logs."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from agent.completion import GenerationTiming
from agent.errors import EngineDead, EngineError
from service.config import SloConfig
from service.controller import Controller
from service.pacing import LiveRequests, Pacing, ScoringGate
from service.slo import LiveRequest
from service.slots import Capacity, SlotPool
from service.telemetry import Metrics
from trainer.fakes import FakePacedWorker
from trainer.pace import Pace


@dataclass
class Engine:
    """A supervised engine whose worker is a fake."""

    worker: FakePacedWorker
    slots: SlotPool = field(default_factory=lambda: SlotPool(Capacity(20, 2000), Capacity(4, 400)))
    state: str = "ready"
    failure: EngineError | None = None

    async def call(self, method: str, *args: bytes) -> bytes:
        assert method == "coloq_pace"
        if self.failure is not None:
            raise self.failure
        return self.worker.coloq_pace(*args)


class Rig:
    """Pacing with a clock that a test moves."""

    def __init__(self, slo: SloConfig | None = None) -> None:
        self.now_s = 100.0
        self.tuning = True
        self.num_queued = 0
        self.worker = FakePacedWorker()
        self.engine = Engine(self.worker)
        self.metrics = Metrics()
        self.live = LiveRequests(self.metrics)
        self.gate = ScoringGate(longest_hold_s=0.05)
        controller = Controller(slo or SloConfig(inter_token_p99_ms=8.0, ttft_p99_ms=1000.0))
        self.pacing = Pacing(
            self.engine,
            controller,
            self.live,
            self.gate,
            self.metrics,
            lambda: self.tuning,
            num_queued=lambda: self.num_queued,
            clock=lambda: self.now_s,
        )

    async def tick(self) -> bool:
        self.now_s += 0.1
        return await self.pacing.tick()

    def finish(self, num_requests: int, inter_token_s: float) -> None:
        for _ in range(num_requests):
            timing = GenerationTiming(0.03, inter_token_s)
            self.live.add(LiveRequest(self.now_s - 0.2, self.now_s, timing))

    def shown(self, prefix: str) -> list[str]:
        return [line for line in self.metrics.render().splitlines() if line.startswith(prefix)]


async def test_the_first_pace_is_paused_and_the_next_one_of_the_workers_sizes() -> None:
    """Before a pulse has come the sizes are not known; once they are, the middle of their ladder is told at once."""
    rig = Rig()
    with rig.engine.slots.live(10):
        assert await rig.tick()
    assert rig.worker.paces == [Pace(0, 0.0), Pace(16, 0.75)]


async def test_a_pace_that_holds_is_told_once_a_tick() -> None:
    """A new engine process, which knows none, gets it with the next tick."""
    rig = Rig()
    with rig.engine.slots.live(10):
        for _ in range(3):
            await rig.tick()
    assert rig.worker.paces[1:] == [Pace(16, 0.75)] * 3


async def test_slow_live_requests_make_it_step_down_and_close_the_gate() -> None:
    """Forty requests with 10 ms between tokens against a bound of 8 ms while training ran."""
    rig = Rig()
    with rig.engine.slots.live(10), capture_logs() as logs:
        await rig.tick()
        rig.worker.train_share = 1.0
        await rig.tick()
        await rig.tick()
        rig.finish(40, 0.010)
        await rig.tick()
        assert rig.worker.paces[-1] == Pace(16, 0.5)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await rig.gate.admitted()
    assert rig.shown("coloq_controller_level") == ["coloq_controller_level 3.0"]
    assert rig.shown("coloq_controller_duty") == ["coloq_controller_duty 0.5"]
    assert rig.shown('coloq_controller_decisions_total{direction="down"}') == [
        'coloq_controller_decisions_total{direction="down"} 1.0'
    ]
    assert rig.shown("coloq_slo_violations_total{") == ['coloq_slo_violations_total{quantity="inter_token"} 1.0']
    (moved,) = [entry for entry in logs if entry["event"] == "controller_moved"]
    assert (moved["direction"], moved["level"], moved["duty"]) == (["down"], 3, 0.5)
    assert moved["reason"] == "inter_token p99 of 10.0 ms, bound 8.0 ms"


async def test_rollouts_are_limited_in_the_slots() -> None:
    """With ten live requests of twenty and four reserved six are free; the lever begins at a quarter of that."""
    rig = Rig()
    with rig.engine.slots.live(1):
        await rig.tick()
        entered: list[asyncio.Task[None]] = [asyncio.create_task(_hold(rig.engine.slots)) for _ in range(20)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert rig.engine.slots.num_rollouts == 3  # int(1/4 * 15)
        for task in entered:
            task.cancel()
        await asyncio.wait(entered)


async def _hold(slots: SlotPool) -> None:
    async with slots.rollout(1):
        await asyncio.Event().wait()


async def test_an_idle_node_does_not_call_its_worker() -> None:
    """No run, no live request and none that finished: nothing is asked, and nothing is limited."""
    rig = Rig()
    rig.tuning = False
    rig.engine.slots.limit_rollouts(0)
    rig.gate.set(False)
    assert not await rig.tick()
    assert rig.worker.paces == []
    await rig.gate.admitted()
    task = asyncio.create_task(_hold(rig.engine.slots))
    await asyncio.sleep(0)
    assert rig.engine.slots.num_rollouts == 1
    task.cancel()


async def test_live_traffic_before_a_run_is_watched() -> None:
    """It is what a run's relative bounds are measured by; a request that came and went between two ticks counts."""
    rig = Rig(SloConfig())
    rig.tuning = False
    rig.finish(1, 0.006)
    assert await rig.tick()
    assert rig.worker.paces[0] == Pace(0, 0.0)


async def test_an_engine_that_restarts_is_left_alone() -> None:
    """Until it is ready again there is nobody to ask."""
    rig = Rig()
    rig.engine.state = "restarting"
    assert not await rig.tick()
    assert rig.worker.paces == []


@pytest.mark.parametrize("failure", [EngineDead("gone"), EngineError("no such method")])
async def test_a_worker_that_cannot_be_paced_is_logged_once(failure: EngineError) -> None:
    """Rollouts and the gate are still set; the same reason is not repeated, and a pulse makes it new again."""
    rig = Rig()
    rig.engine.failure = failure
    with rig.engine.slots.live(10), capture_logs() as logs:
        assert not await rig.tick()
        assert not await rig.tick()
        rig.engine.failure = None
        assert await rig.tick()
        rig.engine.failure = failure
        await rig.tick()
    assert [entry["reason"] for entry in logs if entry["event"] == "worker_not_paced"] == [str(failure)] * 2


async def test_an_answer_that_is_no_pulse_is_trouble_too() -> None:
    """A worker of another release does not end pacing."""
    rig = Rig()
    rig.worker.answer = b"\xc1"
    with capture_logs() as logs:
        assert not await rig.tick()
    assert [entry["event"] for entry in logs] == ["worker_not_paced"]


async def test_what_a_tick_raises_does_not_end_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged, and the loop goes on until it is cancelled."""
    rig = Rig()
    monkeypatch.setattr("service.pacing._QUIET_TICK_S", 0.001)
    monkeypatch.setattr("service.pacing.TICK_S", 0.001)
    ticked: list[int] = []

    async def fail() -> bool:
        ticked.append(1)
        raise ValueError("a defect")

    monkeypatch.setattr(rig.pacing, "tick", fail)
    with capture_logs() as logs:
        loop = asyncio.create_task(rig.pacing.run())
        await _until(lambda: len(ticked) >= 3)
        loop.cancel()
    assert {entry["event"] for entry in logs} == {"pacing_failed"}


async def test_a_run_that_starts_is_paced_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one the loop looks once a second; a run does not wait for that."""
    rig = Rig()
    rig.tuning = False
    monkeypatch.setattr("service.pacing._QUIET_TICK_S", 60.0)
    monkeypatch.setattr("service.pacing.TICK_S", 0.001)
    loop = asyncio.create_task(rig.pacing.run())
    await asyncio.sleep(0.02)
    assert rig.worker.paces == []
    rig.tuning = True
    await _until(lambda: bool(rig.worker.paces))
    loop.cancel()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the loop under test tells nobody
            await asyncio.sleep(0)


async def test_engine_activity_is_shown_over_ten_seconds() -> None:
    """Two pulses of 0.1 s: medians of their p50 and p99, the larger maximum, half of the time training, 300 tokens in
    0.2 s, 0.14 and 0.05 s of which the engine's thread computed and waited for the device. Of a time without steps
    nothing is shown, which is not zero."""
    rig = Rig()
    await rig.tick()
    assert rig.shown("coloq_engine_step_seconds{") == rig.shown("coloq_engine_thread_share{") == []
    rig.worker.num_engine_steps = 10
    for p50_ms, p99_ms, max_ms, share, tokens in ((6.0, 8.0, 9.0, 0.0, 0), (7.0, 12.0, 20.0, 1.0, 300)):
        rig.worker.step_ms = (p50_ms, p99_ms, max_ms)
        rig.worker.train_share, rig.worker.num_train_tokens = share, tokens
        rig.worker.engine_cpu_s, rig.worker.device_wait_s = p50_ms / 100 + 0.005, share / 20
        rig.now_s += 20 if tokens == 0 else 0
        await rig.tick()
    assert set(rig.shown("coloq_engine_step_seconds{")) == {
        'coloq_engine_step_seconds{quantile="p50"} 0.0065',
        'coloq_engine_step_seconds{quantile="p99"} 0.01',
        'coloq_engine_step_seconds{quantile="max"} 0.02',
    }
    shares = dict(line.rsplit(" ", 1) for line in rig.shown("coloq_engine_thread_share{"))
    assert {name: float(share) for name, share in shares.items()} == pytest.approx(
        {'coloq_engine_thread_share{state="cpu"}': 0.7, 'coloq_engine_thread_share{state="device_wait"}': 0.25}
    )
    assert rig.shown("coloq_train_share") == ["coloq_train_share 0.5"]
    assert rig.shown("coloq_train_tokens_per_second") == ["coloq_train_tokens_per_second 1500.0"]


async def test_scoring_goes_on_after_some_seconds_whatever_happens() -> None:
    """A gate that stays closed holds a group back for its longest time, here 0.05 s, and no longer."""
    gate = ScoringGate(longest_hold_s=0.05)
    gate.set(False)
    started = asyncio.get_running_loop().time()
    await gate.admitted()
    assert asyncio.get_running_loop().time() - started >= 0.045


async def test_an_opened_gate_lets_at_once_who_waited() -> None:
    """Nobody polls."""
    gate = ScoringGate()
    gate.set(False)
    waiting = asyncio.create_task(gate.admitted())
    await asyncio.sleep(0)
    assert not waiting.done()
    gate.set(True)
    async with asyncio.timeout(1):
        await waiting


async def test_no_rollout_enters_while_live_requests_wait_in_front_of_the_engine() -> None:
    """The fair queue holds them back there, so the engine's own queue is empty."""
    rig = Rig()
    rig.num_queued = 1
    with rig.engine.slots.live(10):
        await rig.tick()
        await rig.tick()
    assert rig.shown("coloq_controller_rollout_limit") == ["coloq_controller_rollout_limit 0.0"]
    rig.num_queued = 0
    with rig.engine.slots.live(10):
        await rig.tick()
    assert rig.shown("coloq_controller_rollout_limit") != ["coloq_controller_rollout_limit 0.0"]
