"""The operator's request over the node's configuration."""

import pytest

from trainer.config import FullConfig, GateConfig, TuningConfig
from trainer.plan import RunPlan
from trainer.records import RunRequest

CONFIG = TuningConfig(steps=6, prompts_per_step=3, group_size=4, max_tokens=32, learning_rate=0.5)


def test_what_is_not_asked_for_is_the_configuration_s() -> None:
    """Languages too: those of all tenants."""
    plan = RunPlan.of(RunRequest(), CONFIG, ("de", "pl"))
    assert (plan.languages, plan.num_steps, plan.prompts_per_step) == (("de", "pl"), 6, 3)
    assert (plan.group_size, plan.max_tokens, plan.gate, plan.learner.learning_rate) == (4, 32, True, 0.5)


def test_what_is_asked_for_wins() -> None:
    """The seed also starts the adapter."""
    request = RunRequest(("pl",), 2, 5, 1, 8, 0.25, 1, False, seed=3)
    plan = RunPlan.of(request, CONFIG, ("de", "pl"))
    assert (plan.languages, plan.num_steps, plan.group_size, plan.prompts_per_step) == (("pl",), 2, 5, 1)
    assert (plan.max_tokens, plan.publish_every, plan.gate) == (8, 1, False)
    assert (plan.learner.learning_rate, plan.learner.seed) == (0.25, 3)


def test_the_gate_may_be_asked_for_where_it_is_off() -> None:
    """False and not asked for are different."""
    config = TuningConfig(gate=GateConfig(enabled=False))
    assert not RunPlan.of(RunRequest(), config, ("de",)).gate
    assert RunPlan.of(RunRequest(gate=True), config, ("de",)).gate


def test_the_last_step_publishes_and_so_does_every_so_many() -> None:
    """Five steps: without an interval only the last, with 2 also the second and fourth."""
    once = RunPlan.of(RunRequest(steps=5), CONFIG, ("de",))
    often = RunPlan.of(RunRequest(steps=5, publish_every=2), CONFIG, ("de",))
    assert [step for step in range(1, 6) if once.publishes_after(step)] == [5]
    assert [step for step in range(1, 6) if often.publishes_after(step)] == [2, 4, 5]


def test_steps_do_not_share_seeds() -> None:
    """Each step's first seed lies 4096 behind the last one's; another run's lies elsewhere."""
    plan = RunPlan.of(RunRequest(seed=1), CONFIG, ("de",))
    seeds = [plan.sampling(step).seed for step in range(3)]
    assert seeds == [1_000_003, 1_004_099, 1_008_195]


def test_the_learner_hears_of_the_method() -> None:
    """With the optimizer's place and where the last good weights are kept."""
    config = TuningConfig(method="full", optimizer="cpu", full=FullConfig(last_good="gpu"))
    learner = RunPlan.of(RunRequest(), config, ("de",)).learner
    assert (learner.method, learner.optimizer, learner.last_good) == ("full", "cpu", "gpu")


@pytest.mark.parametrize(("budget", "num_refills"), [(0.0, 0), (0.5, 1), (1.0, 3), (4.0, 12)])
def test_refills_are_a_multiple_of_a_steps_prompts(budget: float, num_refills: int) -> None:
    """Of three prompts; rounded down."""
    plan = RunPlan.of(RunRequest(prompts_per_step=3), TuningConfig(refill_budget=budget), ())
    assert plan.num_refills == num_refills


def test_large_steps_share_no_seed() -> None:
    """600 prompts and as many refills of 8 siblings need 9,600 seeds: the next step's begin after them."""
    plan = RunPlan.of(RunRequest(prompts_per_step=600), TuningConfig(refill_budget=1.0), ())
    first, second = plan.sampling(1).seed, plan.sampling(2).seed
    assert (first, second) == (9600, 19200)


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
        ({"checkpoint_every": 5}, [5, 10, 12]),
        ({"checkpoint_every": 5, "publish_every": 4}, [4, 5, 8, 10, 12]),
        ({"checkpoint_every": 0, "publish_every": 4}, []),
        ({"method": "full"}, [10, 12]),
    ],
)
def test_checkpoints_come_every_so_often_and_before_publications(changes: dict[str, object], steps: list[int]) -> None:
    """Of twelve steps; each by method adapter, every tenth by method full unless it is said otherwise."""
    config = TuningConfig.model_validate({"steps": 12, **changes})
    plan = RunPlan.of(RunRequest(), config, ("de",))
    assert [step for step in range(1, 13) if plan.checkpoints_after(step)] == steps
