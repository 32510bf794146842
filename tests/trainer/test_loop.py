"""A tuning run over fakes: the order of its steps, and what it leaves behind however it ends."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.completion import Completion, FinishReason
from agent.errors import (
    EngineDead,
    EngineError,
    GateRejected,
    ParityFailed,
    PromptTooLong,
    PublicationFailed,
    TrainerFailed,
    TuningError,
)
from agent.fakes import FakeEngine
from agent.ports import GenerateRequest
from rewards.score import Ungradable
from tests.trainer.samples import completion, episode
from tests.trainer.tuning import CONFIG, Node, UnendingRollouts, by_seed
from trainer.batch import TrainingBatch
from trainer.config import GateConfig, HealthConfig
from trainer.fakes import FakeTrainer
from trainer.loop import RunHooks
from trainer.plan import RunPlan
from trainer.ports import PolicyMetadata, StepResult
from trainer.promotion import Standing
from trainer.records import Evaluation, RunRequest, StepReport
from trainer.rollout import RolloutSampler

EPISODES = [episode(number, language) for language in ("de", "pl") for number in range(1, 7)]


class _Hooks:
    """Keeps what a run reports."""

    def __init__(self) -> None:
        self.steps: list[StepReport] = []
        self.evaluations: list[Evaluation] = []
        self.published: list[int] = []
        self.stop = asyncio.Event()
        self.stop_after: int | None = None

    @property
    def port(self) -> RunHooks:
        return RunHooks(self._step, self._evaluation, self._published, self.stop)

    async def _step(self, report: StepReport) -> None:
        self.steps.append(report)
        if report.step == self.stop_after:
            self.stop.set()

    async def _evaluation(self, evaluation: Evaluation) -> None:
        self.evaluations.append(evaluation)

    async def _published(self, version: int) -> None:
        self.published.append(version)


async def _run(node: Node, hooks: _Hooks, request: RunRequest | None = None) -> bool:
    plan = RunPlan.of(request or RunRequest(), CONFIG, ("de", "pl"))
    return await node.loop.run("run_a", plan, hooks.port)


async def test_a_run_goes_in_order(tmp_path: Path) -> None:
    """Each step makes a version and frees the one before it; the last is published, and nothing else is left."""
    node, hooks = Node(tmp_path, EPISODES), _Hooks()
    assert await _run(node, hooks)
    assert node.happened("begin", "step", "install", "remove", "logprobs", "save", "record", "activate") == [
        "begin",
        "step 1",
        "install 1",
        "step 2",
        "install 2",
        "remove 1",
        "step 3",
        "install 3",
        "remove 2",
        "logprobs",
        "save 3",
        "record 3",
        "activate 3",
    ]
    assert hooks.published == [3]
    assert node.slots.installed == (3,)
    assert node.trainer.kept == {3}


async def test_siblings_are_sampled_from_the_newest_candidate(tmp_path: Path) -> None:
    """Step 1 from the base model, step 2 from version 1, step 3 from version 2: two prompts, two siblings each."""
    node = Node(tmp_path, EPISODES)
    await _run(node, _Hooks())
    rollouts = [request for request in node.engine.requests if request.request_id.startswith("rollout")]
    assert [request.policy_version for request in rollouts] == [0] * 4 + [1] * 4 + [2] * 4
    assert len({request.sampling.seed for request in rollouts}) == 12
    assert len({request.request_id for request in rollouts}) == 12
    assert [batch.oldest_version for batch in node.trainer.batches] == [0, 1, 2]


async def test_a_step_trains_on_what_was_sampled(tmp_path: Path) -> None:
    """Groups of one good and one bad sibling: centred 0.5 and -0.5 over a deviation of sqrt(0.5), plus 1e-4."""
    node, hooks = Node(tmp_path, EPISODES), _Hooks()
    await _run(node, hooks, RunRequest(steps=1))
    (batch,) = node.trainer.batches
    advantage = 0.5 / (0.5**0.5 + 1e-4)
    assert sorted(batch.advantages.tolist()) == pytest.approx([-advantage] * 2 + [advantage] * 2)
    (report,) = hooks.steps
    assert (report.step, report.version, report.num_sequences) == (1, 1, 4)
    assert (report.reward_mean, report.reward_std, report.dropped) == (0.5, 0.5, {})
    assert report.reward_by_language == {"de": 0.5, "pl": 0.5}
    assert report.parts == {"fake": 0.5}
    assert report.parts_by_language == {"fake": {"de": 0.5, "pl": 0.5}}
    assert report.num_tokens == batch.num_tokens


async def test_a_step_reports_where_its_groups_came_from(tmp_path: Path) -> None:
    """Step 1 has a logged group of version 0 and a sampled one; step 2 two sampled ones: nothing was logged twice, and
    all of it is of the step's own version."""
    logged = episode(1, siblings=tuple(completion(text=f"a{number}") for number in range(2)))
    node, hooks = Node(tmp_path, [logged, *(episode(number) for number in range(2, 5))]), _Hooks()
    await _run(node, hooks, RunRequest(steps=2))
    assert [(report.num_logged_groups, report.num_sampled_groups) for report in hooks.steps] == [(1, 1), (0, 2)]
    assert [(report.staleness_mean, report.staleness_max) for report in hooks.steps] == [(0.0, 0)] * 2
    assert [report.num_sequences for report in hooks.steps] == [4, 4]


async def test_logged_groups_age_with_the_run(tmp_path: Path) -> None:
    """Both prompts of each step are logged groups of version 0: the third step begins with version 2, two later."""
    siblings = tuple(completion(text=f"a{number}") for number in range(2))
    node = Node(tmp_path, [episode(number, siblings=siblings) for number in range(1, 7)])
    hooks = _Hooks()
    await _run(node, hooks)
    assert [(report.staleness_mean, report.staleness_max) for report in hooks.steps] == [(0.0, 0), (1.0, 1), (2.0, 2)]
    assert [batch.oldest_version for batch in node.trainer.batches] == [0, 0, 0]


async def _run_with(node: Node, hooks: _Hooks, **tuning: Any) -> bool:
    """``tuning``: keys of the section that are to differ."""
    plan = RunPlan.of(RunRequest(steps=2), CONFIG.model_copy(update=tuning), ("de", "pl"))
    return await node.loop.run("run_a", plan, hooks.port)


class _CutShort(FakeEngine):
    """Replies of odd seeds end at their token limit."""

    async def generate(self, request: GenerateRequest) -> Completion:
        completion = await super().generate(request)
        odd = (request.sampling.seed or 0) % 2 == 1
        return replace(completion, finish_reason=FinishReason.LENGTH) if odd else completion


async def test_truncated_replies_add_nothing_when_they_are_masked(tmp_path: Path) -> None:
    """One of each group of two: it counts in the group's mean and in means over replies, and is reported."""
    node, hooks = Node(tmp_path, EPISODES), _Hooks()
    node.loop = replace(node.loop, sampler=RolloutSampler(_CutShort(by_seed)))
    await _run_with(node, hooks, mask_truncated=True)
    advantage = 0.5 / (0.5**0.5 + 1e-4)
    for batch in node.trainer.batches:
        assert batch.advantages.tolist() == pytest.approx([advantage] * 2)
        assert batch.num_masked == 2
    assert [(report.num_sequences, report.dropped) for report in hooks.steps] == [(2, {"truncated": 2})] * 2


async def test_truncated_replies_are_trained_on_when_they_are_not_masked(tmp_path: Path) -> None:
    """As others are."""
    node, hooks = Node(tmp_path, EPISODES), _Hooks()
    node.loop = replace(node.loop, sampler=RolloutSampler(_CutShort(by_seed)))
    await _run_with(node, hooks)
    assert [(batch.num_sequences, batch.num_masked) for batch in node.trainer.batches] == [(4, 0)] * 2


async def test_a_draw_of_truncated_replies_alone_teaches_nothing(tmp_path: Path) -> None:
    """All are masked, so the run gives up with the reason."""
    node = Node(tmp_path, EPISODES)
    node.loop = replace(node.loop, sampler=RolloutSampler(_AllCutShort(by_seed)))
    with pytest.raises(TuningError, match=r"nothing to learn from in 10 prompts.* \{'truncated': 20\}"):
        await _run_with(node, _Hooks(), mask_truncated=True)


class _AllCutShort(FakeEngine):
    """Every reply ends at its token limit."""

    async def generate(self, request: GenerateRequest) -> Completion:
        return replace(await super().generate(request), finish_reason=FinishReason.LENGTH)


class _SkewedTrainer(FakeTrainer):
    """Its second step finds almost all of the weight on a few tokens."""

    async def step(self, batch: TrainingBatch, version: int) -> StepResult:
        result = await super().step(batch, version)
        return replace(result, effective_sample_size=0.01) if version == 2 else result


async def test_an_unhealthy_run_ends_with_the_reason_and_publishes_nothing(tmp_path: Path) -> None:
    """The step is reported, and then undone: no version is active, kept or installed."""
    node, hooks = Node(tmp_path, EPISODES, trainer=_SkewedTrainer()), _Hooks()
    with pytest.raises(TuningError, match=r"tuning\.health\.min_effective_sample_size is 0\.1, got 0\.01"):
        await _run_with(node, hooks, health=HealthConfig(patience=1))
    assert [report.step for report in hooks.steps] == [1, 2]
    assert (hooks.published, node.sink.active_version) == ([], 0)
    assert (node.trainer.kept, node.trainer.installed) == (set(), [])


async def test_one_accident_does_not_end_a_run(tmp_path: Path) -> None:
    """Patience is three steps unless it is set."""
    node, hooks = Node(tmp_path, EPISODES, trainer=_SkewedTrainer()), _Hooks()
    assert await _run_with(node, hooks)
    assert hooks.published == [2]


async def test_each_group_is_scored_after_asking(tmp_path: Path) -> None:
    """Two groups of two: while the second is not admitted nothing is trained on; once it is, the step goes on."""
    node = Node(tmp_path, EPISODES)
    node.admission.open.clear()
    running = asyncio.create_task(_run(node, _Hooks(), RunRequest(steps=1)))
    async with asyncio.timeout(5):
        while node.admission.num_asked == 0:  # noqa: ASYNC110 - the fake counts, it does not call
            await asyncio.sleep(0)
    assert (node.trainer.batches, running.done()) == ([], False)
    node.admission.open.set()
    await running
    assert node.admission.num_asked == 2
    assert len(node.trainer.batches) == 1


async def test_claims_are_settled_after_their_step(tmp_path: Path) -> None:
    """Two prompts a step. Those of the step that failed are handed out again to a later run."""
    node = Node(tmp_path, EPISODES)
    await _run(node, _Hooks(), RunRequest(steps=2))
    assert len(node.journal.settled) == 4
    node.trainer.failures["step"] = TrainerFailed("nan")
    with pytest.raises(TrainerFailed):
        await _run(node, _Hooks())
    assert len(node.journal.settled) == 4


async def test_a_run_begins_from_the_active_policy(tmp_path: Path) -> None:
    """From a fresh adapter on the base model, from the folder of what the run before published."""
    node = Node(tmp_path, EPISODES)
    await _run(node, _Hooks(), RunRequest(steps=1))
    assert node.trainer.parent is None
    await _run(node, _Hooks(), RunRequest(steps=1))
    assert node.trainer.parent == tmp_path / "v1"
    assert (await node.ledger.policy(2)).parent == 1


async def test_publishing_every_so_many_steps(tmp_path: Path) -> None:
    """Three steps, every two: versions 2 and 3. A published candidate keeps its slot when the next one comes."""
    node, hooks = Node(tmp_path, EPISODES), _Hooks()
    await _run(node, hooks, RunRequest(publish_every=2))
    assert hooks.published == [2, 3]
    assert (await node.ledger.policy(3)).parent == 2
    assert node.slots.installed == (2, 3)


@pytest.mark.parametrize(
    ("method", "error"),
    [
        ("step", TrainerFailed("loss and gradient norm must be finite")),
        ("install", TrainerFailed("no slot")),
        ("save", TrainerFailed("disk full")),
    ],
)
async def test_a_failure_leaves_no_candidate(tmp_path: Path, method: str, error: TrainerFailed) -> None:
    """Whatever failed, no slot and no kept weights are left, and the base model serves on."""
    node, hooks = Node(tmp_path, EPISODES), _Hooks()
    node.trainer.failures[method] = error
    with pytest.raises(TrainerFailed, match=str(error)):
        await _run(node, hooks)
    assert (node.slots.installed, node.trainer.kept, node.sink.active_version) == ((), set(), 0)
    assert hooks.published == []


async def test_a_later_failure_keeps_what_was_published(tmp_path: Path) -> None:
    """Version 1 was published after the first step; the second raises."""
    node, hooks = Node(tmp_path, EPISODES), _Hooks()

    async def break_after_publication(version: int) -> None:
        node.trainer.failures["step"] = TrainerFailed("nan")

    plan = RunPlan.of(RunRequest(publish_every=1), CONFIG, ("de", "pl"))
    with pytest.raises(TrainerFailed):
        await node.loop.run(
            "run_a", plan, RunHooks(hooks.port.on_step, hooks.port.on_evaluation, break_after_publication, hooks.stop)
        )
    assert (node.slots.installed, node.sink.active_version) == ((1,), 1)


async def test_a_failure_to_clean_up_does_not_hide_the_reason(tmp_path: Path) -> None:
    """The engine died in the step, so the candidate cannot be removed either: the step's error is what counts."""
    node, hooks = Node(tmp_path, EPISODES), _Hooks()
    node.trainer.failures.update(step=EngineDead("died in the step"), remove=EngineDead("not running"))
    with pytest.raises(EngineDead, match="died in the step"):
        await _run(node, hooks)


class _SlowTrainer(FakeTrainer):
    """Does not come back from ``slow``, in which it has done its work, before ``go`` is set."""

    def __init__(self, slow: str) -> None:
        super().__init__()
        self._slow = slow
        self.reached = asyncio.Event()
        self.go = asyncio.Event()

    async def step(self, batch: TrainingBatch, version: int) -> StepResult:
        result = await super().step(batch, version)
        await self._pause("step", version)
        return result

    async def install(self, version: int) -> None:
        await super().install(version)
        await self._pause("install", version)

    async def save(self, folder: Path, metadata: PolicyMetadata) -> str:
        digest = await super().save(folder, metadata)
        await self._pause("save", metadata.version)
        return digest

    async def _pause(self, method: str, version: int) -> None:
        if f"{method} {version}" == self._slow:
            self.reached.set()
            await self.go.wait()


@pytest.mark.parametrize("slow", ["step 1", "install 1", "step 2", "install 2"])
async def test_a_run_that_is_cancelled_leaves_no_candidate(tmp_path: Path, slow: str) -> None:
    """The learner finishes a step that nobody waits for, and keeps its version: it is forgotten all the same."""
    trainer = _SlowTrainer(slow)
    node = Node(tmp_path, EPISODES, trainer=trainer)
    run = asyncio.create_task(_run(node, _Hooks()))
    await trainer.reached.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert (node.slots.installed, trainer.installed, trainer.kept) == ((), [], set())


async def test_a_failed_parity_probe_publishes_nothing(tmp_path: Path) -> None:
    """The engine's tokens have -0.5, the trainer's -1.5."""
    node, hooks = Node(tmp_path, EPISODES), _Hooks()
    node.trainer.logprob = -1.5
    with pytest.raises(ParityFailed):
        await _run(node, hooks)
    assert (hooks.published, node.sink.active_version, node.slots.installed) == ([], 0, ())


def _gated(tmp_path: Path, candidate_reward: float) -> Node:
    """Half of the prompts are held out. Held-out replies of the base model score 0.5."""

    def reply(request: GenerateRequest) -> str:
        gate = request.request_id.startswith("held-out")
        return f"{'g' if gate else 'a'}{request.sampling.seed if not gate else request.policy_version}"

    return Node(
        tmp_path,
        [episode(number, language) for language in ("de", "pl") for number in range(1, 20)],
        reply=reply,
        judge=lambda sample: (
            (0.5 if sample.text == "g0" else candidate_reward)
            if sample.text.startswith("g")
            else float(int(sample.text[1:]) % 2 == 0)
        ),
        held_out_share=0.5,
        config=CONFIG.model_copy(update={"gate": GateConfig(num_prompts=4)}),
    )


async def test_the_gate_passes_a_candidate_that_is_not_worse(tmp_path: Path) -> None:
    """It is asked once, about the last candidate against what serves now."""
    node, hooks = _gated(tmp_path, 0.5), _Hooks()
    assert await _run(node, hooks, RunRequest(gate=True))
    assert [(e.version, e.baseline_version) for e in hooks.evaluations] == [(3, 0)]
    assert hooks.published == [3]
    assert (await node.ledger.policy(3)).evaluation == hooks.evaluations[0]


async def test_the_gate_rejects_a_worse_candidate(tmp_path: Path) -> None:
    """The error names the languages and by how much; the candidate is gone."""
    node, hooks = _gated(tmp_path, 0.25), _Hooks()
    with pytest.raises(
        GateRejected, match=r"de: reward fell from 0\.500 to 0\.250 .*, more than 0\.05; pl: reward fell"
    ):
        await _run(node, hooks, RunRequest(gate=True))
    assert (hooks.published, node.slots.installed, node.sink.active_version) == ([], (), 0)
    assert hooks.evaluations[0].rejected.keys() == {"de", "pl"}


@pytest.mark.parametrize(("stop_after", "num_steps"), [(1, 1), (3, 3)])
async def test_a_stopped_run_publishes_nothing_more(tmp_path: Path, stop_after: int, num_steps: int) -> None:
    """Also when the stop comes during the last step."""
    node, hooks = Node(tmp_path, EPISODES), _Hooks()
    hooks.stop_after = stop_after
    assert not await _run(node, hooks)
    assert len(hooks.steps) == num_steps
    assert (hooks.published, node.slots.installed, node.trainer.kept) == ([], (), set())


async def test_a_stop_that_comes_after_the_publication_changes_nothing(tmp_path: Path) -> None:
    """The run has done all that it was to do."""
    node, hooks = Node(tmp_path, EPISODES), _Hooks()

    async def stop(version: int) -> None:
        hooks.stop.set()

    plan = RunPlan.of(RunRequest(), CONFIG, ("de", "pl"))
    port = RunHooks(hooks.port.on_step, hooks.port.on_evaluation, stop, hooks.stop)
    assert await node.loop.run("run_a", plan, port)
    assert node.sink.active_version == 3


async def test_an_empty_journal_ends_the_run_with_advice(tmp_path: Path) -> None:
    """There is nothing to learn from before there were requests."""
    with pytest.raises(TuningError, match="no training prompts in de, pl: send content requests first"):
        await _run(Node(tmp_path, []), _Hooks())


async def test_siblings_that_all_score_alike_end_the_run_with_counts(tmp_path: Path) -> None:
    """Two prompts and four times as many in their place, with two siblings each, are twenty replies."""
    node = Node(tmp_path, EPISODES, judge=lambda sample: 0.5)
    with pytest.raises(TuningError, match=r"nothing to learn from in 10 prompts.*\{'no_spread': 20\}"):
        await _run(node, _Hooks())
    assert node.trainer.batches == []


async def test_a_fruitless_draw_is_followed_by_another(tmp_path: Path) -> None:
    """The first four replies cannot be graded; they are counted in the step's report and settled with it."""
    seen: list[str] = []

    def judge(sample: object) -> float | Ungradable:
        seen.append("")
        return Ungradable("down", "fake@1") if len(seen) <= 4 else float(len(seen) % 2)

    node, hooks = Node(tmp_path, EPISODES, judge=judge), _Hooks()
    await _run(node, hooks, RunRequest(steps=1))
    assert hooks.steps[0].dropped == {"ungradable": 4}
    assert len(node.journal.settled) == 4


async def test_a_prompt_without_room_for_a_reply_is_counted(tmp_path: Path) -> None:
    """German prompt 1 is as long as the context window; the run goes on with the other one."""
    node, hooks = Node(tmp_path, [episode(1), episode(2)]), _Hooks()
    generate = node.engine.generate

    async def narrow(request: GenerateRequest) -> Completion:
        if request.prompt_token_ids == (1,):
            raise PromptTooLong("no room")
        return await generate(request)

    node.engine.generate = narrow  # type: ignore[method-assign]  # this one engine has a smaller window
    await _run(node, hooks, RunRequest(steps=1))
    assert hooks.steps[0].dropped == {"prompt_too_long": 1}
    assert hooks.steps[0].num_sequences == 2


def _without_clocks(reports: list[StepReport]) -> list[StepReport]:
    return [replace(report, rollout_s=0.0, score_s=0.0, train_s=0.0, install_s=0.0) for report in reports]


def _rollouts(node: Node) -> list[GenerateRequest]:
    return [request for request in node.engine.requests if request.request_id.startswith("rollout")]


async def _until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not reached():  # noqa: ASYNC110 - the fakes record, they do not call
            await asyncio.sleep(0.001)


async def test_the_next_step_is_drawn_while_a_policy_is_published(tmp_path: Path) -> None:
    """Version 1 is being written: both prompts of step 2 have been answered by it, and nothing is trained on them
    before it is published."""
    trainer = _SlowTrainer("save 1")
    node, hooks = Node(tmp_path, EPISODES, trainer=trainer), _Hooks()
    running = asyncio.create_task(_run(node, hooks, RunRequest(publish_every=1)))
    await trainer.reached.wait()
    await _until(lambda: len(_rollouts(node)) == 8 and node.admission.num_asked == 4)
    assert [request.policy_version for request in _rollouts(node)] == [0] * 4 + [1] * 4
    assert (len(trainer.batches), hooks.published, node.sink.active_version) == (1, [], 0)
    trainer.go.set()
    assert await running
    assert hooks.published == [1, 2, 3]


async def test_the_next_step_is_drawn_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    """Where no gate can refuse the candidate the draw need not wait, also before a publication, which does."""
    node, hooks, go = Node(tmp_path, EPISODES), _Hooks(), asyncio.Event()

    async def write(standing: Standing) -> None:
        await go.wait()

    plan = RunPlan.of(RunRequest(publish_every=1, gate=False), CONFIG, ("de", "pl"))
    running = asyncio.create_task(node.loop.run("run_a", plan, replace(hooks.port, on_checkpoint=write)))
    await _until(lambda: len(_rollouts(node)) == 8 and node.admission.num_asked == 4)
    assert (hooks.published, node.happened("save")) == ([], [])
    go.set()
    assert await running
    assert hooks.published == [1, 2, 3]


async def test_how_long_a_publication_takes_changes_nothing(tmp_path: Path) -> None:
    """The next step is drawn before it ends, or after: prompts, seeds, versions, claims and reports are the same."""
    slow = _SlowTrainer("save 1")
    nodes = [Node(tmp_path / "quick", EPISODES), Node(tmp_path / "slow", EPISODES, trainer=slow)]
    hooks = [_Hooks(), _Hooks()]
    assert await _run(nodes[0], hooks[0], RunRequest(publish_every=1))
    running = asyncio.create_task(_run(nodes[1], hooks[1], RunRequest(publish_every=1)))
    await slow.reached.wait()
    await _until(lambda: nodes[1].admission.num_asked == 4)
    slow.go.set()
    assert await running
    assert _without_clocks(hooks[0].steps) == _without_clocks(hooks[1].steps)
    assert _rollouts(nodes[0]) == _rollouts(nodes[1])
    assert nodes[0].journal.settled == nodes[1].journal.settled


async def test_a_publication_that_fails_cancels_the_draw(tmp_path: Path) -> None:
    """Its own error comes out. Nothing was trained on what was drawn, its two claims are not settled, and no rollout
    runs any more when the candidate gives up its slot."""
    trainer = _SlowTrainer("save 1")
    node, hooks = Node(tmp_path, EPISODES, trainer=trainer), _Hooks()
    rollouts = UnendingRollouts(1, node.events)
    node.loop = replace(node.loop, sampler=RolloutSampler(rollouts))
    trainer.failures["verify"] = PublicationFailed("disk full")
    running = asyncio.create_task(_run(node, hooks, RunRequest(publish_every=1)))
    await _until(lambda: rollouts.num_running == 4)
    trainer.go.set()
    with pytest.raises(PublicationFailed, match="disk full"):
        await running
    assert node.happened("step", "rollout", "verify", "cancelled", "remove") == [
        *("step 1", *["rollout 1"] * 4, "verify v1"),
        *(*["cancelled 1"] * 4, "remove 1"),
    ]
    assert (len(node.journal.settled), hooks.published, node.slots.installed) == (2, [], ())


async def test_a_stop_after_a_publication_cancels_the_draw(tmp_path: Path) -> None:
    """What was published stays; the step that was being drawn is not taken."""
    node, hooks = Node(tmp_path, EPISODES), _Hooks()
    rollouts = UnendingRollouts(1, node.events)
    node.loop = replace(node.loop, sampler=RolloutSampler(rollouts))

    async def stop(version: int) -> None:
        await _until(lambda: rollouts.num_running == 4)
        hooks.stop.set()

    plan = RunPlan.of(RunRequest(publish_every=1), CONFIG, ("de", "pl"))
    port = RunHooks(hooks.port.on_step, hooks.port.on_evaluation, stop, hooks.stop)
    assert not await node.loop.run("run_a", plan, port)
    assert (len(hooks.steps), node.sink.active_version, node.slots.installed) == (1, 1, (1,))
    assert (rollouts.num_running, node.happened("cancelled")) == (0, ["cancelled 1"] * 4)
    assert len(node.journal.settled) == 2


async def test_a_run_that_is_cancelled_while_it_publishes_cancels_the_draw(tmp_path: Path) -> None:
    """Before the candidate is freed, whose slot the rollouts run on."""
    trainer = _SlowTrainer("save 1")
    node = Node(tmp_path, EPISODES, trainer=trainer)
    rollouts = UnendingRollouts(1, node.events)
    node.loop = replace(node.loop, sampler=RolloutSampler(rollouts))
    running = asyncio.create_task(_run(node, _Hooks(), RunRequest(publish_every=1)))
    await _until(lambda: rollouts.num_running == 4)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert node.happened("cancelled", "remove") == [*["cancelled 1"] * 4, "remove 1"]
    assert (node.slots.installed, trainer.kept) == ((), set())


async def test_a_draw_that_fails_waits_for_the_publication(tmp_path: Path) -> None:
    """The engine refuses the rollouts of step 2 while version 1 is being written: it is published, then the run ends
    with the engine's reason."""

    def reply(request: GenerateRequest) -> str:
        if request.request_id.startswith("rollout") and request.policy_version == 1:
            raise EngineError("refused")
        return by_seed(request)

    trainer = _SlowTrainer("save 1")
    node, hooks = Node(tmp_path, EPISODES, trainer=trainer, reply=reply), _Hooks()
    running = asyncio.create_task(_run(node, hooks, RunRequest(publish_every=1)))
    await trainer.reached.wait()
    await _until(lambda: len(_rollouts(node)) > 4)
    trainer.go.set()
    with pytest.raises(EngineError, match="refused"):
        await running
    assert (hooks.published, node.sink.active_version, len(trainer.batches)) == ([1], 1, 1)


async def test_a_candidate_that_the_gate_rejects_has_drawn_nothing(tmp_path: Path) -> None:
    """Step 2 of three would have been drawn from version 1."""
    node = _gated(tmp_path, 0.25)
    with pytest.raises(GateRejected):
        await _run(node, _Hooks(), RunRequest(gate=True, publish_every=1))
    assert [request.policy_version for request in _rollouts(node)] == [0] * 4


async def test_after_the_last_step_nothing_is_drawn(tmp_path: Path) -> None:
    """Two steps of two prompts, each of which is published: four are claimed and settled."""
    node = Node(tmp_path, EPISODES)
    await _run(node, _Hooks(), RunRequest(steps=2, publish_every=1))
    assert len(_rollouts(node)) == 8
    assert len(node.journal.settled) == 4
