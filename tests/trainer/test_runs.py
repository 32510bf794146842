"""Tuning runs as operators see them."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.completion import Completion
from agent.errors import Conflict, EngineDead, InvalidInput, NotFound, StoreError, TrainerFailed
from agent.ports import GenerateRequest
from tests.trainer.samples import episode
from tests.trainer.tuning import CONFIG, Node
from trainer.config import TuningConfig
from trainer.records import RunRequest, RunState, RunStatus, StepReport
from trainer.runs import TuningRuns

EPISODES = [episode(number, language) for language in ("de", "pl") for number in range(1, 7)]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path, EPISODES)


async def _ended(node: Node, run_id: str) -> RunStatus:
    async with asyncio.timeout(10):
        while True:
            status = await node.runs.status(run_id)
            if status.state.final:
                return status
            await asyncio.sleep(0.005)


async def test_a_run_succeeds(node: Node) -> None:
    """It starts running at once, and ends with three steps and one published version, also in the ledger."""
    started = await node.runs.start(RunRequest())
    assert (started.state, started.num_steps, node.runs.summary) == (RunState.RUNNING, 3, "running")
    status = await _ended(node, started.id)
    assert (status.state, status.reason, status.published) == (RunState.SUCCEEDED, None, (3,))
    assert [report.step for report in status.steps] == [1, 2, 3]
    assert status.ended_at is not None
    assert status.ended_at >= status.started_at
    await asyncio.sleep(0)
    assert await node.ledger.run(started.id) == status
    assert node.runs.summary == "idle"


async def test_metrics_hear_of_every_step_and_of_the_end(node: Node) -> None:
    """Through the two callbacks."""
    versions: list[int] = []
    ends: list[RunStatus] = []
    node.runs = TuningRuns(
        node.loop,
        node.ledger,
        CONFIG,
        ("de", "pl"),
        lambda report: versions.append(report.version),
        ends.append,
        records=node.records,
    )
    status = await _ended(node, (await node.runs.start(RunRequest())).id)
    assert versions == [1, 2, 3]
    assert ends == [status]


async def test_a_second_start_is_refused_with_the_running_id(node: Node) -> None:
    """And is possible once the first has ended."""
    first = await node.runs.start(RunRequest())
    with pytest.raises(Conflict) as refusal:
        await node.runs.start(RunRequest())
    assert refusal.value.blocking_id == first.id
    await _ended(node, first.id)
    second = await node.runs.start(RunRequest(steps=1))
    assert second.id != first.id
    await _ended(node, second.id)
    assert {status.id for status in await node.runs.list()} == {first.id, second.id}


async def test_an_unknown_language_is_refused(node: Node) -> None:
    """The message lists what tenants have; nothing was started."""
    with pytest.raises(InvalidInput, match="languages: must be among de, pl, got fr"):
        await node.runs.start(RunRequest(languages=("de", "fr")))
    assert await node.runs.list() == []


async def test_without_tenants_there_is_nothing_to_tune_on(tmp_path: Path) -> None:
    """Whatever is asked for."""
    for request in (RunRequest(), RunRequest(languages=("de",))):
        with pytest.raises(InvalidInput, match="no tenant is configured"):
            await Node(tmp_path, EPISODES, languages=()).runs.start(request)


async def test_a_trainer_failure_is_the_reason(node: Node) -> None:
    """Readiness shows it until a later run does better; nothing was published."""
    node.trainer.failures["step"] = TrainerFailed("loss and gradient norm must be finite, got nan and nan")
    status = await _ended(node, (await node.runs.start(RunRequest())).id)
    assert (status.state, status.published) == (RunState.FAILED, ())
    assert status.reason == "loss and gradient norm must be finite, got nan and nan"
    assert node.runs.summary == f"stopped: {status.reason}"
    node.trainer.failures.clear()
    await _ended(node, (await node.runs.start(RunRequest())).id)
    assert node.runs.summary == "idle"


async def test_a_dead_engine_is_the_reason(node: Node) -> None:
    """Rollouts run at the same time; one reason is given, in the engine's own words. The run is not lost."""
    node.engine.failure = EngineDead("the engine process died")
    status = await _ended(node, (await node.runs.start(RunRequest())).id)
    assert (status.state, status.reason) == (RunState.INTERRUPTED, "the engine process died")
    assert node.runs.summary == "stopped: the engine process died"


async def test_an_empty_journal_is_the_reason(tmp_path: Path) -> None:
    """With what to do about it."""
    node = Node(tmp_path, [])
    status = await _ended(node, (await node.runs.start(RunRequest(languages=("pl",)))).id)
    assert status.state is RunState.FAILED
    assert status.reason == "the journal has no training prompts in pl: send content requests first"


async def test_without_spread_the_reason_has_counts(tmp_path: Path) -> None:
    """Every reply scored 0.5."""
    node = Node(tmp_path, EPISODES, judge=lambda sample: 0.5)
    status = await _ended(node, (await node.runs.start(RunRequest())).id)
    assert status.state is RunState.FAILED
    assert "dropped replies by reason: {'no_spread': 20}" in str(status.reason)


async def test_a_rejected_candidate_is_no_failure(node: Node) -> None:
    """The gate has nothing to compare on here, so it rejects; nothing is published and readiness is idle."""
    status = await _ended(node, (await node.runs.start(RunRequest(gate=True))).id)
    assert (status.state, status.published, node.sink.active_version) == (RunState.REJECTED, (), 0)
    assert str(status.reason).startswith("the gate needs held-out prompts in de, pl")
    assert node.runs.summary == "idle"


async def test_an_unexpected_error_ends_the_run_only(tmp_path: Path) -> None:
    """The boundary records type and message; another run can start."""

    def broken(request: GenerateRequest) -> str:
        raise ZeroDivisionError("a defect")

    node = Node(tmp_path, EPISODES, reply=broken)
    status = await _ended(node, (await node.runs.start(RunRequest())).id)
    assert (status.state, status.reason) == (RunState.FAILED, "ZeroDivisionError: a defect")
    assert node.runs.summary == "stopped: ZeroDivisionError: a defect"


class _Held:
    """Rollouts wait until they are let go."""

    def __init__(self, node: Node) -> None:
        self.waiting = asyncio.Event()
        self.go = asyncio.Event()
        self._generate = node.engine.generate
        node.engine.generate = self._held  # type: ignore[method-assign]  # the engine is slow in this test

    async def _held(self, request: GenerateRequest) -> Completion:
        self.waiting.set()
        await self.go.wait()
        return await self._generate(request)


async def test_a_run_stops_after_its_current_step(node: Node) -> None:
    """Stopping until then; the step in progress is carried out, nothing is published."""
    held = _Held(node)
    started = await node.runs.start(RunRequest())
    await held.waiting.wait()
    assert (await node.runs.stop(started.id)).state is RunState.STOPPING
    held.go.set()
    status = await _ended(node, started.id)
    assert (status.state, status.reason) == (RunState.STOPPED, "stopped by an operator")
    assert (len(status.steps), status.published) == (1, ())


async def test_stopping_what_has_ended_changes_nothing(node: Node) -> None:
    """The final status comes back; an unknown run is not found."""
    status = await _ended(node, (await node.runs.start(RunRequest(steps=1))).id)
    assert await node.runs.stop(status.id) == status
    with pytest.raises(NotFound):
        await node.runs.stop("run_unknown")


async def test_closing_the_node_interrupts_the_run(node: Node) -> None:
    """It is recorded as interrupted, and no candidate is left in the engine."""
    held = _Held(node)
    started = await node.runs.start(RunRequest())
    await held.waiting.wait()
    await node.runs.close()
    status = await node.ledger.run(started.id)
    assert (status.state, status.reason) == (RunState.INTERRUPTED, "the node is stopping")
    assert (node.slots.installed, node.trainer.kept) == ((), set())
    await node.runs.close()


async def test_a_store_that_fails_at_the_start_starts_nothing(node: Node) -> None:
    """The caller hears of it, and can try again."""
    node.ledger.failures["save_run"] = StoreError("no")
    with pytest.raises(StoreError):
        await node.runs.start(RunRequest())
    node.ledger.failures.clear()
    await _ended(node, (await node.runs.start(RunRequest(steps=1))).id)


async def test_an_end_that_cannot_be_stored_is_still_known(node: Node) -> None:
    """The store fails from the first step on: the run is interrupted, and not shown as running for ever."""
    started = await node.runs.start(RunRequest())
    node.ledger.failures["save_run"] = StoreError("the store is gone")
    status = await _ended(node, started.id)
    assert (status.state, status.reason) == (RunState.INTERRUPTED, "the store is gone")
    assert [known.state for known in await node.runs.list()] == [RunState.INTERRUPTED]
    assert (await node.ledger.run(started.id)).state is RunState.RUNNING


AUTO = CONFIG.model_copy(update={"resume": "auto"})


def _rebuild(
    node: Node,
    config: TuningConfig = CONFIG,
    *,
    on_step: Callable[[StepReport], None] = lambda report: None,
    on_end: Callable[[RunStatus], None] = lambda status: None,
) -> None:
    """What a restart of the node makes anew, with another configuration or other metrics."""
    node.runs = TuningRuns(node.loop, node.ledger, config, ("de", "pl"), on_step, on_end, records=node.records)


async def _interrupted(
    node: Node, request: RunRequest | None = None, config: TuningConfig = CONFIG, *, after: int = 1
) -> RunStatus:
    """A run whose engine died after so many steps, as the restarted node finds it."""

    def die(report: StepReport) -> None:
        if report.step == after:
            node.engine.failure = EngineDead("the engine process died")

    _rebuild(node, config, on_step=die)
    status = await _ended(node, (await node.runs.start(request or RunRequest())).id)
    node.engine.failure = None
    _rebuild(node, config)
    assert (status.state, len(status.steps)) == (RunState.INTERRUPTED, after)
    return status


async def test_an_interrupted_run_goes_on_where_it_was(node: Node) -> None:
    """After one step of three: two more are taken, each prompt is trained on once, and the run says that it went on."""
    interrupted = await _interrupted(node)
    resumed = await node.runs.resume(interrupted.id)
    assert (resumed.state, resumed.steps, resumed.reason) == (RunState.RUNNING, interrupted.steps, None)
    status = await _ended(node, interrupted.id)
    assert (status.state, [report.step for report in status.steps]) == (RunState.SUCCEEDED, [1, 2, 3])
    assert (status.resumed_after, status.published) == ((1,), (3,))
    assert node.trainer.num_steps_before == 1
    assert len(node.trainer.batches) == 3
    assert len(node.journal.settled) == 6


async def test_a_run_that_was_killed_before_its_first_checkpoint_starts_over(node: Node) -> None:
    """With checkpoints off: all three steps are taken again, on the same prompts."""
    interrupted = await _interrupted(node, config=CONFIG.model_copy(update={"checkpoint_every": 0}), after=2)
    first = [batch.token_ids.tolist() for batch in node.trainer.batches]
    await node.runs.resume(interrupted.id)
    status = await _ended(node, interrupted.id)
    assert (len(status.steps), status.resumed_after) == (3, (0,))
    assert [batch.token_ids.tolist() for batch in node.trainer.batches[2:4]] == first


async def test_only_an_interrupted_run_can_be_resumed(node: Node) -> None:
    """The refusal says what the run is and what to do; an unknown one is not found."""
    done = await _ended(node, (await node.runs.start(RunRequest(steps=1))).id)
    with pytest.raises(Conflict, match=f"only an interrupted run can be resumed, and {done.id} succeeded: start a new"):
        await node.runs.resume(done.id)
    with pytest.raises(NotFound):
        await node.runs.resume("run_unknown")
    interrupted = await _interrupted(node)
    held = _Held(node)
    running = await node.runs.start(RunRequest())
    with pytest.raises(Conflict, match=f"{running.id} is running") as refusal:
        await node.runs.resume(interrupted.id)
    assert refusal.value.blocking_id == running.id
    held.go.set()
    await _ended(node, running.id)


async def test_a_run_of_other_settings_stays_interrupted(node: Node) -> None:
    """The node was restarted with another configuration: with the first one again, the run goes on."""
    interrupted = await _interrupted(node)
    _rebuild(node, CONFIG.model_copy(update={"temperature": 0.5}))
    with pytest.raises(Conflict, match=r"tuning\.temperature was 1\.0 and is 0\.5"):
        await node.runs.resume(interrupted.id)
    _rebuild(node)
    await node.runs.resume(interrupted.id)
    assert (await _ended(node, interrupted.id)).state is RunState.SUCCEEDED


async def test_an_interrupted_run_can_be_given_up(node: Node) -> None:
    """It is stopped then, and its checkpoints are deleted."""
    interrupted = await _interrupted(node)
    assert await node.checkpoints.newest(interrupted.id) is not None
    assert (await node.runs.stop(interrupted.id)).state is RunState.STOPPED
    assert await node.checkpoints.newest(interrupted.id) is None
    assert node.runs.summary == "idle"
    with pytest.raises(Conflict, match="was stopped"):
        await node.runs.resume(interrupted.id)


async def test_a_fresh_engine_ends_the_run_on_the_one_before(node: Node) -> None:
    """Even one that had not noticed; asked to, the node then goes on with it by itself."""
    _rebuild(node, AUTO)
    held = _Held(node)
    started = await node.runs.start(RunRequest())
    await held.waiting.wait()
    held.go.set()
    await node.runs.pick_up()
    status = await _ended(node, started.id)
    while status.state is RunState.INTERRUPTED:
        await asyncio.sleep(0.005)
        status = await _ended(node, started.id)
    assert (status.state, status.resumed_after) == (RunState.SUCCEEDED, (0,))


async def test_a_run_that_is_interrupted_again_and_again_is_left_alone(node: Node) -> None:
    """Twice without a step in between: a node that is to resume by itself waits for a person, and says why."""
    interrupted = await _interrupted(node)
    await node.ledger.save_run(replace(interrupted, resumed_after=(1, 1)))
    _rebuild(node, AUTO)
    with capture_logs() as logs:
        await node.runs.pick_up()
        await asyncio.sleep(0.05)
    (reason,) = [log["reason"] for log in logs if log["event"] == "tuning_run_not_resumed"]
    assert reason == f"{interrupted.id} was interrupted again and again before its next step"
    assert (await node.runs.status(interrupted.id)).state is RunState.INTERRUPTED


async def test_a_node_that_asks_says_what_waits(node: Node) -> None:
    """Readiness and log name the run that the last node left, and nothing goes on by itself."""
    interrupted = await _interrupted(node)
    with capture_logs() as logs:
        await node.runs.pick_up()
    assert node.runs.summary == "stopped: the engine process died"
    assert [log["advice"] for log in logs] == [f"coloq tune resume {interrupted.id}"]


async def test_what_was_published_before_is_not_counted_again(node: Node) -> None:
    """Metrics have heard of version 1 when the run was interrupted, and hear of 2 and 3 when it ends."""
    ends: list[tuple[int, ...]] = []
    interrupted = await _interrupted(node, RunRequest(publish_every=1), after=2)
    _rebuild(node, on_end=lambda status: ends.append(status.published))
    await node.runs.resume(interrupted.id)
    status = await _ended(node, interrupted.id)
    assert (interrupted.published, ends, status.published) == ((1,), [(2, 3)], (1, 2, 3))


async def test_a_checkpoint_that_fails_is_told_and_the_run_goes_on(node: Node) -> None:
    """The disk is full: training is worth more than the way back."""
    node.trainer.failures["checkpoint"] = TrainerFailed("no space left on device")
    with capture_logs() as logs:
        status = await _ended(node, (await node.runs.start(RunRequest())).id)
    assert status.state is RunState.SUCCEEDED
    assert [log["step"] for log in logs if log["event"] == "checkpoint_failed"] == [1, 2, 3]


async def test_the_next_step_is_drawn_while_a_checkpoint_is_written(node: Node) -> None:
    """The checkpoint of step 1, which step 2 finds, is of the moment before: it has one draw."""
    checkpoint = node.trainer.checkpoint
    positions: list[tuple[int, int] | None] = []

    async def write_slowly(folder: Path) -> None:
        async with asyncio.timeout(5):
            while node.admission.num_asked < 4:  # noqa: ASYNC110 - the fake counts, it does not call
                await asyncio.sleep(0.001)
        await checkpoint(folder)

    def note(report: StepReport) -> None:
        found = node.checkpoints._newest(started.id)
        positions.append(None if found is None else (found.position.step, found.position.num_draws))

    node.trainer.checkpoint = write_slowly  # type: ignore[method-assign]  # this one disk is slow
    _rebuild(node, on_step=note)
    started = await node.runs.start(RunRequest(steps=2))
    assert (await _ended(node, started.id)).state is RunState.SUCCEEDED
    assert positions == [None, (1, 1)]


async def test_languages_of_tenants_that_came_later_may_be_tuned(tmp_path: Path) -> None:
    """The languages are those of the tenants at the start of a run, not at the start of the node."""
    node = Node(tmp_path, EPISODES, languages=())
    node.runs.use_languages(("pl", "de", "pl"))
    with pytest.raises(InvalidInput, match="must be among de, pl, got fr"):
        await node.runs.start(RunRequest(languages=("fr",)))
    await _ended(node, (await node.runs.start(RunRequest(languages=("pl",)))).id)
