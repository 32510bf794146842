"""The engine that outlives its process, over processes that tests kill."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from agent.completion import Completion, FinishReason, GenerationTiming, Sampling, VersionSpan
from agent.errors import EngineDead, ModelError
from agent.ports import Delta, GenerateRequest, Listener, Priority
from agent.siblings import siblings
from service.config import EngineConfig
from service.slo import LiveRequest
from service.supervised_engine import SupervisedEngine
from service.versions import LiveVersions

CONFIG = EngineConfig(max_num_seqs=4, live_reserve=1, max_model_len=64, max_restarts=1)


@dataclass(frozen=True)
class Facts:
    kv_cache_tokens: int = 256


@dataclass
class Process:
    """An engine process: it answers when ``answering`` is set, and is gone when ``kill`` is called."""

    log: list[str]
    facts: Facts = field(default_factory=Facts)
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    timing: GenerationTiming | None = None
    sampled: list[tuple[str, int]] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    listeners: dict[str, Listener | None] = field(default_factory=dict)
    dead: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def alive(self) -> bool:
        return not self.dead.is_set()

    def kill(self) -> None:
        self.dead.set()

    def speak(self, request_id: str, text: str) -> None:
        """Let the listener of a request that runs hear of it."""
        listener = self.listeners[request_id]
        assert listener is not None
        listener(Delta(text))

    async def died(self) -> None:
        await self.dead.wait()

    async def stop(self) -> None:
        self.log.append("stop")
        self.dead.set()

    async def sample(self, request: GenerateRequest, version: int) -> Completion:
        self.sampled.append((request.request_id, version))
        self.listeners[request.request_id] = request.listener
        try:
            await self._answer_or_death()
        except asyncio.CancelledError:
            self.aborted.append(request.request_id)
            raise
        span = VersionSpan(version, version)
        prompt, sampling = request.prompt_token_ids, request.sampling
        return Completion("a", prompt, (1,), (-0.5,), sampling, FinishReason.STOP, span, self.timing)

    async def call(self, method: str, *args: Any) -> Any:
        if not self.alive:
            raise EngineDead("the engine process is gone")
        self.log.append(method)
        return [method, *args]

    async def answered(self, ticket: int, within_s: float) -> None:
        self.log.append(f"answered {ticket}")

    async def _answer_or_death(self) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in (self.answering, self.dead)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if not self.alive:
            raise EngineDead("the engine process died")


@dataclass
class Plant:
    """Launches processes, records what happens, and can be told to fail."""

    log: list[str] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    failure: Exception | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """A launch waits for it; set at first."""
    prepare: Callable[[Process], None] = lambda process: None
    """What happens to a process while it is prepared."""

    def __post_init__(self) -> None:
        self.gate.set()

    async def launch(self) -> Process:
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        self.log.append("launch")
        self.processes.append(Process(self.log))
        return self.processes[-1]

    async def on_start(self) -> None:
        self.prepare(self.processes[-1])
        if not self.processes[-1].alive:
            raise EngineDead("the engine process died")
        self.log.append("prepared")


@pytest.fixture
def plant() -> Plant:
    return Plant()


@pytest_asyncio.fixture
async def engine(plant: Plant) -> AsyncIterator[SupervisedEngine]:
    """A started engine; its first process does not answer yet."""
    supervised = SupervisedEngine(CONFIG, plant.launch, on_restart=lambda: plant.log.append("counted"))
    await supervised.start(plant.on_start)
    yield supervised
    await supervised.stop()


def request(
    name: str, *, priority: Priority = Priority.LIVE, version: int | None = None, max_tokens: int = 8
) -> GenerateRequest:
    sampling = Sampling(max_tokens=max_tokens)
    return GenerateRequest(name, (1, 2), sampling, priority, policy_version=version)


def rollout(name: str, *, version: int | None = None, max_tokens: int = 8) -> GenerateRequest:
    return request(name, priority=Priority.ROLLOUT, version=version, max_tokens=max_tokens)


async def settle() -> None:
    """Let every task run as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_live_request_runs_again_after_a_death(plant: Plant, engine: SupervisedEngine) -> None:
    """The caller of a request in flight when the process dies gets a completion of the next process."""
    generating = asyncio.create_task(engine.generate(request("r1")))
    await settle()
    plant.processes[0].kill()
    await settle()
    plant.processes[1].answering.set()
    completion = await generating
    assert completion.text == "a"
    assert plant.processes[0].sampled == [("r1", 0)]
    assert plant.processes[1].sampled == [("r1", 0)]
    assert (engine.num_restarts, engine.state) == (1, "ready")


async def test_a_death_is_logged_whoever_hears_of_it_first(plant: Plant, engine: SupervisedEngine) -> None:
    """The event that an operator searches for, once for each process; here a request in flight hears of it at once."""
    generating = asyncio.create_task(engine.generate(request("r1")))
    await settle()
    with capture_logs() as logs:
        plant.processes[0].kill()
        await settle()
        plant.processes[1].answering.set()
        await generating
    assert [entry["event"] for entry in logs].count("engine_died") == 1


async def test_live_request_is_retried_once(plant: Plant) -> None:
    """A request whose second process dies as well fails: it may be what kills them."""
    engine = SupervisedEngine(CONFIG.model_copy(update={"max_restarts": 5}), plant.launch)
    await engine.start(plant.on_start)
    generating = asyncio.create_task(engine.generate(request("r1")))
    for attempt in range(2):
        await settle()
        plant.processes[attempt].kill()
    with pytest.raises(EngineDead):
        await generating
    await settle()
    assert [process.sampled for process in plant.processes] == [[("r1", 0)], [("r1", 0)], []]
    await engine.stop()


async def test_a_request_that_was_heard_of_is_not_sampled_again(plant: Plant, engine: SupervisedEngine) -> None:
    """Its caller has the beginning of a text that another process would not go on with; before the first delta a
    death is survived like anybody's."""
    heard: list[Delta] = []
    silent, spoken = (replace(request(name), listener=heard.append) for name in ("r1", "r2"))
    generating = [asyncio.create_task(engine.generate(asked)) for asked in (silent, spoken)]
    await settle()
    plant.processes[0].speak("r2", "Once")
    plant.processes[0].kill()
    await settle()
    plant.processes[1].answering.set()
    with pytest.raises(EngineDead):
        await generating[1]
    assert (await generating[0]).text == "a"
    assert heard == [Delta("Once")]
    assert plant.processes[1].sampled == [("r1", 0)]


async def test_rollout_fails_with_its_process(plant: Plant, engine: SupervisedEngine) -> None:
    """A rollout is not retried: the candidate that it sampled from died with the process."""
    generating = asyncio.create_task(engine.generate(rollout("s1", version=7)))
    await settle()
    plant.processes[0].kill()
    with pytest.raises(EngineDead):
        await generating
    await settle()
    assert plant.processes[1].sampled == []
    assert engine.slots.num_rollouts == 0


async def test_new_process_is_prepared_before_traffic(plant: Plant, engine: SupervisedEngine) -> None:
    """The dead process is stopped, a new one launched and prepared, and only then a waiting request runs."""
    plant.gate.clear()
    plant.processes[0].kill()
    await settle()
    assert engine.state == "restarting"
    generating = asyncio.create_task(engine.generate(request("r1")))
    await settle()
    plant.prepare = lambda process: plant.log.append(f"sampled before: {len(process.sampled)}")
    plant.gate.set()
    await settle()
    assert plant.log == ["launch", "prepared", "stop", "launch", "sampled before: 0", "prepared", "counted"]
    plant.processes[1].answering.set()
    assert (await generating).text == "a"


async def test_too_many_deaths_give_up(plant: Plant, engine: SupervisedEngine) -> None:
    """With one restart allowed, the second death ends it: waiting and later live requests fail with the reason."""
    generating = asyncio.create_task(engine.generate(request("r1")))
    await settle()
    plant.processes[0].kill()
    await settle()
    plant.processes[1].kill()
    with pytest.raises(EngineDead):
        await generating
    assert await engine.gave_up == "the engine died 2 times within 10 minutes"
    assert engine.state == "stopped"
    with pytest.raises(EngineDead, match="2 times within 10 minutes"):
        await engine.generate(request("r2"))
    assert engine.slots.num_live == 0


@pytest.mark.parametrize("failure", [ModelError("out of memory"), OSError("out of memory")])
async def test_process_that_cannot_be_launched_again_gives_up(
    plant: Plant, engine: SupervisedEngine, failure: Exception
) -> None:
    """Whatever a launch raises ends the node with its reason, and never leaves requests waiting for ever."""
    plant.failure = failure
    generating = asyncio.create_task(engine.generate(request("r1")))
    await settle()
    plant.processes[0].kill()
    with pytest.raises(EngineDead, match="could not be started again: out of memory"):
        await generating
    assert engine.gave_up.result() == "the engine could not be started again: out of memory"


async def test_death_while_being_prepared_counts_as_one_more(plant: Plant) -> None:
    """A new process that dies before it is ready is replaced like any other, within the allowed number."""
    engine = SupervisedEngine(CONFIG.model_copy(update={"max_restarts": 2}), plant.launch)
    await engine.start(plant.on_start)
    plant.prepare = lambda process: process.kill() if len(plant.processes) == 2 else None
    plant.processes[0].kill()
    await settle()
    assert (len(plant.processes), engine.state, engine.num_restarts) == (3, "ready", 1)
    await engine.stop()


async def test_first_start_that_fails_raises(plant: Plant) -> None:
    """A node that never came up says why instead of trying again."""
    engine = SupervisedEngine(CONFIG, plant.launch)
    plant.failure = ModelError("no such model")
    with pytest.raises(ModelError, match="no such model"):
        await engine.start(plant.on_start)
    await engine.stop()


async def test_preempted_rollout_starts_again(plant: Plant, engine: SupervisedEngine) -> None:
    """Three rollouts and two live requests are one too many: the newest rollout is aborted and completes later.

    The cache holds 256 tokens, sequences 4, of which 1 and 64 tokens are reserved.
    """
    process = plant.processes[0]
    siblings = [asyncio.create_task(engine.generate(rollout(f"s{n}"))) for n in range(3)]
    await settle()
    live = [asyncio.create_task(engine.generate(request(f"r{n}"))) for n in range(2)]
    await settle()
    assert process.aborted == ["s2"]
    assert engine.slots.num_preemptions == 1
    process.answering.set()
    completions = await asyncio.gather(*siblings, *live)
    assert [completion.text for completion in completions] == ["a"] * 5
    assert [name for name, _ in process.sampled] == ["s0", "s1", "s2", "r0", "r1", "s2"]


async def test_siblings_of_a_live_request_count_each(plant: Plant, engine: SupervisedEngine) -> None:
    """Of four sequences three are live siblings, so of three rollouts one may stay."""
    process = plant.processes[0]
    rollouts = [asyncio.create_task(engine.generate(rollout(f"s{n}"))) for n in range(3)]
    await settle()
    writing = asyncio.create_task(siblings(engine, request("r"), 3))
    await settle()
    assert (engine.slots.num_live, engine.slots.num_rollouts) == (3, 1)
    assert process.aborted == ["s2", "s1"]
    process.answering.set()
    assert len(await writing) == 3
    await asyncio.gather(*rollouts)
    assert engine.slots.num_live == 0


async def test_siblings_survive_a_death_of_the_engine_each(plant: Plant, engine: SupervisedEngine) -> None:
    """All of them run again in the next process."""
    writing = asyncio.create_task(siblings(engine, request("r"), 2))
    await settle()
    plant.processes[0].kill()
    await settle()
    plant.processes[1].answering.set()
    assert [completion.text for completion in await writing] == ["a", "a"]
    assert [name for name, _ in plant.processes[1].sampled] == ["r-0", "r-1"]


async def test_live_requests_that_finish_are_heard_of(plant: Plant) -> None:
    """With their timing, and from when to when they ran; rollouts, and what was not measured, are not."""
    heard: list[LiveRequest] = []
    engine = SupervisedEngine(CONFIG, plant.launch, on_live=heard.append)
    await engine.start(plant.on_start)
    process = plant.processes[0]
    process.answering.set()
    await engine.generate(request("r0"))
    process.timing = GenerationTiming(0.2, 0.01)
    before_s = time.monotonic()
    await engine.generate(rollout("s0"))
    await engine.generate(request("r1"))
    (live,) = heard
    assert live.timing == process.timing
    assert before_s <= live.started_s <= live.finished_s <= time.monotonic()
    await engine.stop()


async def test_cancelled_request_is_aborted_and_leaves(plant: Plant, engine: SupervisedEngine) -> None:
    """A caller that hangs up frees its room; the engine hears of it."""
    for made in (request("r1"), rollout("s1")):
        generating = asyncio.create_task(engine.generate(made))
        await settle()
        generating.cancel()
        with suppress(asyncio.CancelledError):
            await generating
    assert plant.processes[0].aborted == ["r1", "s1"]
    assert (engine.slots.num_live, engine.slots.num_rollouts) == (0, 0)


async def test_version_is_chosen_when_the_request_starts(plant: Plant, engine: SupervisedEngine) -> None:
    """A request in flight keeps its version; the next one gets the new one; a named version goes before both."""
    first = asyncio.create_task(engine.generate(request("r1")))
    await settle()
    engine.activate(3)
    second = asyncio.create_task(engine.generate(request("r2")))
    third = asyncio.create_task(engine.generate(request("r3", version=2)))
    await settle()
    assert plant.processes[0].sampled == [("r1", 0), ("r2", 3), ("r3", 2)]
    plant.processes[0].answering.set()
    spans = [(await task).versions for task in (first, second, third)]
    assert spans == [VersionSpan(0, 0), VersionSpan(3, 3), VersionSpan(2, 2)]


async def test_live_weights_are_labelled_by_their_span(plant: Plant) -> None:
    """The engine runs no adapter, is given another cache scope after each change, and the reply spans what was live."""
    engine = SupervisedEngine(CONFIG, plant.launch, versions=LiveVersions())
    await engine.start(plant.on_start)
    engine.activate(3)
    first = asyncio.create_task(engine.generate(request("r1")))
    await settle()
    engine.announce(4)
    engine.activate(4)
    second = asyncio.create_task(engine.generate(rollout("s1", version=4)))
    await settle()
    process = plant.processes[0]
    process.answering.set()
    assert [(await task).versions for task in (first, second)] == [VersionSpan(3, 4), VersionSpan(4, 4)]
    assert process.sampled == [("r1", 0), ("s1", 0)]
    assert engine.active_version == 4
    await engine.stop()


async def test_retried_request_gets_the_version_of_its_second_start(plant: Plant, engine: SupervisedEngine) -> None:
    """The version that a new process was given is the one that its requests run on."""
    generating = asyncio.create_task(engine.generate(request("r1")))
    await settle()
    plant.prepare = lambda process: engine.activate(5)
    plant.processes[0].kill()
    await settle()
    plant.processes[1].answering.set()
    assert (await generating).versions == VersionSpan(5, 5)


async def test_drained_waits_for_the_last_request_of_a_version(plant: Plant, engine: SupervisedEngine) -> None:
    """A version is drained when none of its requests runs; requests of another version do not matter."""
    await engine.drained(1)
    ours = asyncio.create_task(engine.generate(request("r1", version=1)))
    await settle()
    other = asyncio.create_task(engine.generate(request("r2", version=2)))
    draining = asyncio.create_task(engine.drained(1))
    await settle()
    assert not draining.done()
    ours.cancel()
    await asyncio.wait_for(draining, timeout=1)
    assert not other.done()
    plant.processes[0].answering.set()
    await other


async def test_calls_reach_the_running_process_only(plant: Plant, engine: SupervisedEngine) -> None:
    """A worker call is answered by the process that runs, and refused at once while there is none."""
    assert await engine.call("coloq_install", 7) == ["coloq_install", 7]
    plant.gate.clear()
    plant.processes[0].kill()
    await settle()
    with pytest.raises(EngineDead):
        await engine.call("coloq_install", 8)


async def test_stop_ends_the_process_and_whoever_waits(plant: Plant, engine: SupervisedEngine) -> None:
    """Requests in flight end with EngineDead, and nothing is started again."""
    generating = asyncio.create_task(engine.generate(request("r1")))
    await settle()
    await engine.stop()
    with pytest.raises(EngineDead, match="the node is stopping"):
        await generating
    await settle()
    assert (len(plant.processes), engine.state) == (1, "stopped")


async def test_stop_during_a_restart_starts_nothing(plant: Plant, engine: SupervisedEngine) -> None:
    """A launch under way is cancelled."""
    plant.gate.clear()
    plant.processes[0].kill()
    await settle()
    await engine.stop()
    plant.gate.set()
    await settle()
    assert len(plant.processes) == 1


async def test_slots_are_known_once_the_engine_is(plant: Plant) -> None:
    """How much room there is, the engine says."""
    engine = SupervisedEngine(CONFIG, plant.launch)
    with pytest.raises(EngineDead, match="has not started yet"):
        _ = engine.slots
