"""Runs of method ``full`` over fakes: every step goes live, and what does not prove itself is rolled back."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import (
    ColoqError,
    EngineDead,
    GateRejected,
    ParityFailed,
    PublicationFailed,
    StoreError,
    TrainerFailed,
)
from agent.ports import GenerateRequest
from tests.trainer.samples import episode
from tests.trainer.tuning import CONFIG, Node, UnendingRollouts
from trainer.config import GateConfig
from trainer.fakes import FakeTrainer
from trainer.loop import RunHooks
from trainer.plan import RunPlan
from trainer.ports import PolicyMetadata
from trainer.records import Evaluation, RunRequest, StepReport
from trainer.rollout import RolloutSampler

FULL = CONFIG.model_copy(update={"method": "full"})
EPISODES = [episode(number, language) for language in ("de", "pl") for number in range(1, 20)]


class _Run:
    """One run of a node, and what it reports. ``failure``: a method that fails from the first publication on."""

    def __init__(self, node: Node, request: RunRequest | None = None) -> None:
        self.node = node
        self.plan = RunPlan.of(request or RunRequest(), FULL, ("de", "pl"))
        self.evaluations: list[Evaluation] = []
        self.published: list[int] = []
        self.stop = asyncio.Event()
        self.failure: tuple[str, ColoqError] | None = None

    async def carry_out(self) -> bool:
        return await self.node.loop.run(
            "run_a", self.plan, RunHooks(self._step, self._evaluation, self._published, self.stop)
        )

    async def _step(self, report: StepReport) -> None:
        """Nothing; replaced by tests in which something happens between two steps."""

    async def _evaluation(self, evaluation: Evaluation) -> None:
        self.evaluations.append(evaluation)

    async def _published(self, version: int) -> None:
        self.published.append(version)
        if self.failure is not None:
            method, error = self.failure
            self.node.trainer.failures[method] = error


def _node(
    root: Path,
    *,
    candidate_reward: float = 0.5,
    trainer: FakeTrainer | None = None,
    gate: GateConfig = GateConfig(num_prompts=4),  # noqa: B008 - frozen
) -> Node:
    """Half of the prompts are held out. Replies to them score 0.5 by the base model, else ``candidate_reward``."""

    def reply(request: GenerateRequest) -> str:
        if request.request_id.startswith("held-out"):
            return f"g{node.trainer.live}"
        return f"a{request.sampling.seed}"

    node = Node(
        root,
        EPISODES,
        reply=reply,
        judge=lambda sample: (
            (0.5 if sample.text == "g0" else candidate_reward)
            if sample.text.startswith("g")
            else float(int(sample.text[1:]) % 2 == 0)
        ),
        held_out_share=0.5,
        trainer=trainer,
        config=FULL.model_copy(update={"gate": gate}),
    )
    return node


async def test_every_step_goes_live_and_the_last_is_recorded(tmp_path: Path) -> None:
    """The next step starts only when the one before is live; at the end the newest is checked, written and settled on.

    The fake trainer refuses a step while another one is not published.
    """
    run = _Run(_node(tmp_path), RunRequest(gate=False))
    assert await run.carry_out()
    assert run.node.events == [
        "keep_live 0",
        "begin",
        *("step 1", "announce 1", "publish_live 1", "activate 1"),
        *("step 2", "announce 2", "publish_live 2", "activate 2"),
        *("step 3", "announce 3", "publish_live 3", "activate 3"),
        *("logprobs", "save 3", "verify v3", "record 3", "set_active 3", "forget 0", "keep_live 3"),
    ]
    assert run.published == [3]
    record = await run.node.ledger.policy(3)
    assert (record.method, record.parent, record.sha256) == ("full", 0, "sha256 of v3")


async def test_siblings_are_sampled_from_what_is_live(tmp_path: Path) -> None:
    """They name the version that their step starts from, which is live then, so that none of them is stale."""
    run = _Run(_node(tmp_path), RunRequest(gate=False))
    await run.carry_out()
    rollouts = [request for request in run.node.engine.requests if request.request_id.startswith("rollout")]
    assert [request.policy_version for request in rollouts] == [0] * 4 + [1] * 4 + [2] * 4


async def test_some_steps_are_recorded_on_the_way(tmp_path: Path) -> None:
    """Three steps, every two: 2 and 3, of which 2 is 3's parent; a restart in between would serve 2."""
    run = _Run(_node(tmp_path), RunRequest(gate=False, publish_every=2))
    await run.carry_out()
    assert run.published == [2, 3]
    assert run.node.happened("set_active", "keep_live", "forget") == [
        "keep_live 0",
        *("set_active 2", "forget 0", "keep_live 2"),
        *("set_active 3", "forget 2", "keep_live 3"),
    ]
    assert (await run.node.ledger.policy(3)).parent == 2


async def test_the_gate_compares_with_what_the_run_began_with(tmp_path: Path) -> None:
    """The base model is judged before the first step, once; both versions are judged on its prompts and seeds."""
    run = _Run(_node(tmp_path, candidate_reward=0.75), RunRequest(gate=True, publish_every=2))
    assert await run.carry_out()
    assert [(e.version, e.baseline_version, e.reward, e.baseline_reward) for e in run.evaluations] == [
        (2, 0, 0.75, 0.5),
        (3, 0, 0.75, 0.5),
    ]
    exams: dict[int | None, list[object]] = {}
    for request in run.node.engine.requests:
        if request.request_id.startswith("held-out"):
            exams.setdefault(request.policy_version, []).append((request.prompt_token_ids, request.sampling))
    assert list(exams) == [0, 2, 3]
    assert exams[0] == exams[2] == exams[3]


async def test_a_worse_candidate_is_rolled_back(tmp_path: Path) -> None:
    """Users had it for the time of the exam; it is in no folder and no ledger."""
    run = _Run(_node(tmp_path, candidate_reward=0.25), RunRequest(gate=True))
    with pytest.raises(GateRejected, match=r"de: reward fell from 0\.500 to 0\.250"):
        await run.carry_out()
    assert run.node.events[-3:] == ["announce 0", "restore_live 0", "activate 0"]
    assert run.node.happened("save", "record") == []
    assert (run.node.trainer.live, run.node.sink.active_version) == (0, 0)


async def test_a_failed_parity_probe_is_rolled_back(tmp_path: Path) -> None:
    """The engine's tokens have -0.5, the trainer's -1.5."""
    run = _Run(_node(tmp_path), RunRequest(gate=False))
    run.node.trainer.logprob = -1.5
    with pytest.raises(ParityFailed):
        await run.carry_out()
    assert (run.published, run.node.trainer.live, run.node.sink.active_version) == ([], 0, 0)


@pytest.mark.parametrize(
    ("method", "error"),
    [
        ("step", TrainerFailed("nan")),
        ("publish_live", PublicationFailed("no")),
        ("save", PublicationFailed("disk full")),
        ("verify", PublicationFailed("damaged")),
        ("keep_live", TrainerFailed("out of memory")),
    ],
)
async def test_a_failure_goes_back_to_the_last_good_version(tmp_path: Path, method: str, error: ColoqError) -> None:
    """What was published last serves, and a restart would serve it too; a copy of it that was lost is read again."""
    run = _Run(_node(tmp_path), RunRequest(gate=False, publish_every=1))
    run.failure = (method, error)
    with pytest.raises(type(error), match=str(error)):
        await run.carry_out()
    node = run.node
    (good,) = run.published
    assert (node.trainer.live, node.sink.active_version, await node.ledger.active_version()) == (good, good, good)


async def test_a_store_that_fails_goes_back_too(tmp_path: Path) -> None:
    """The version is written, but no ledger knows of it."""
    run = _Run(_node(tmp_path), RunRequest(gate=False))
    run.node.ledger.failures["record"] = StoreError("no")
    with pytest.raises(StoreError):
        await run.carry_out()
    assert (run.node.trainer.live, run.node.sink.active_version) == (0, 0)


async def test_a_run_that_is_stopped_goes_back(tmp_path: Path) -> None:
    """Between two publications: versions 1 and 2 were live for a while."""
    run = _Run(_node(tmp_path), RunRequest(gate=False))
    publish = run.node.trainer.publish_live

    async def stop_at_two(version: int) -> float:
        if version == 2:
            run.stop.set()
        return await publish(version)

    run.node.trainer.publish_live = stop_at_two  # type: ignore[method-assign]  # the operator comes at this moment
    assert not await run.carry_out()
    assert run.node.events[-3:] == ["announce 0", "restore_live 0", "activate 0"]


async def test_a_run_that_is_cancelled_goes_back(tmp_path: Path) -> None:
    """While version 1 is on its way: the engine carries the order out all the same, and then the next one."""
    run = _Run(_node(tmp_path), RunRequest(gate=False))
    publish, reached = run.node.trainer.publish_live, asyncio.Event()

    async def never_answer(version: int) -> float:
        await publish(version)
        reached.set()
        await asyncio.Event().wait()
        return 0.0

    run.node.trainer.publish_live = never_answer  # type: ignore[method-assign]  # this one engine is slow to answer
    running = asyncio.create_task(run.carry_out())
    await reached.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (run.node.trainer.live, run.node.sink.active_version) == (0, 0)


async def test_a_roll_back_that_fails_does_not_hide_the_reason(tmp_path: Path) -> None:
    """The engine died in the step; the next one will be given the last good version before traffic."""
    run = _Run(_node(tmp_path), RunRequest(gate=False))

    async def die(report: StepReport) -> None:
        run.node.trainer.failures.update(step=EngineDead("died in the step"), restore_live=EngineDead("not running"))

    run._step = die  # type: ignore[method-assign]  # what happens between two steps
    with pytest.raises(EngineDead, match="died in the step"):
        await run.carry_out()
    run.node.trainer.failures.clear()
    run.node.events.clear()
    await run.node.publisher.restore()
    assert run.node.events == ["activate 0"]


async def test_an_engine_that_died_and_came_back_is_left_alone(tmp_path: Path) -> None:
    """The new process serves the last published version before the run has noticed; the run rolls nothing back."""
    run = _Run(_node(tmp_path), RunRequest(gate=False))
    node = run.node

    async def die_and_come_back(report: StepReport) -> None:
        node.trainer.live, node.trainer.unpublished = 0, None
        node.trainer.kept.clear()
        await node.publisher.restore()
        node.trainer.failures["step"] = TrainerFailed("a run must begin before it can step")
        node.events.clear()

    run._step = die_and_come_back  # type: ignore[method-assign]  # what happens between two steps
    with pytest.raises(TrainerFailed, match="must begin"):
        await run.carry_out()
    assert node.events == ["step 2"]
    assert (node.trainer.live, node.sink.active_version) == (0, 0)


async def test_without_held_out_prompts_nothing_is_trained(tmp_path: Path) -> None:
    """The gate says so before a step is live rather than after."""
    node = Node(tmp_path, EPISODES, held_out_share=0.0, config=FULL)
    with pytest.raises(GateRejected, match="the gate needs held-out prompts"):
        await _Run(node, RunRequest(gate=True)).carry_out()
    assert node.happened("begin", "step", "publish_live", "restore_live") == []


class _Wanderer(FakeTrainer):
    """Finds logged replies less probable from the second version on."""

    async def logprobs(self, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]) -> list[list[float]]:
        """See TrainerPort.logprobs."""
        if self.unpublished == 2:
            self.logprob = -1.5
        return await super().logprobs(prompts, replies)


async def test_a_step_that_moved_too_far_does_not_go_live(tmp_path: Path) -> None:
    """Version 1 gives logged replies the -0.5 they had, version 2 gives them -1.5: e^-1 - 1 + 1 = 0.368 nats per token
    are beyond 0.3. Version 2 is never live, and version 1 is rolled back."""
    node = _node(tmp_path, trainer=_Wanderer(), gate=GateConfig(num_prompts=4, max_kl=0.3))
    run = _Run(node, RunRequest(gate=True))
    with pytest.raises(GateRejected, match=r"version 2 moved 0\.368 nats per token .*, more than 0\.3; it did not go"):
        await run.carry_out()
    assert node.happened("publish_live", "restore_live") == ["publish_live 1", "restore_live 0"]
    assert (node.trainer.live, node.sink.active_version) == (0, 0)


async def test_without_a_limit_steps_are_not_scored(tmp_path: Path) -> None:
    """The learner scores logged replies before the run and at the gate; in between it costs nothing."""
    run = _Run(_node(tmp_path), RunRequest(gate=True))
    await run.carry_out()
    order = run.node.happened("step", "logprobs", "record")
    assert order == ["logprobs", "step 1", "step 2", "step 3", "logprobs", "logprobs", "record 3"]  # the last: parity
    (evaluation,) = run.evaluations
    assert evaluation.report is not None
    assert evaluation.report.drift is not None
    assert {language: row.kl for language, row in evaluation.report.drift.items()} == {"de": 0.0, "pl": 0.0}


async def test_a_learner_that_cannot_score_is_noted(tmp_path: Path) -> None:
    """What it would have said is a report; the exam decides."""

    class _Silent(FakeTrainer):
        async def logprobs(
            self, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]
        ) -> list[list[float]]:
            """See TrainerPort.logprobs."""
            if self.live == 0:
                raise TrainerFailed("out of memory")
            return await super().logprobs(prompts, replies)

    run = _Run(_node(tmp_path, trainer=_Silent()), RunRequest(gate=True))
    assert await run.carry_out()
    (evaluation,) = run.evaluations
    assert evaluation.report is not None
    assert evaluation.report.drift is None
    assert evaluation.report.notes == (
        "no drift: the learner had not scored held-out replies before the run's first step",
    )


async def test_no_rollout_sees_the_weights_go_back(tmp_path: Path) -> None:
    """A publication changes no weight that step 2 is being drawn with. When it fails, the draw is cancelled first."""
    node = _node(tmp_path)
    rollouts = UnendingRollouts(1, node.events)
    node.loop = replace(node.loop, sampler=RolloutSampler(rollouts))
    run = _Run(node, RunRequest(gate=False, publish_every=1))
    save = node.trainer.save

    async def fail_once_drawn(folder: Path, metadata: PolicyMetadata) -> str:
        await save(folder, metadata)
        async with asyncio.timeout(5):
            while rollouts.num_running < 4:  # noqa: ASYNC110 - the fake counts, it does not call
                await asyncio.sleep(0.001)
        raise PublicationFailed("disk full")

    node.trainer.save = fail_once_drawn  # type: ignore[method-assign]  # this one disk is full
    with pytest.raises(PublicationFailed, match="disk full"):
        await run.carry_out()
    since_live = node.events[node.events.index("activate 1") + 1 :]
    assert sorted(since_live[:6]) == sorted([*["rollout 1"] * 4, "logprobs", "save 1"])
    assert since_live[6:] == [*["cancelled 1"] * 4, "announce 0", "restore_live 0", "activate 0"]
