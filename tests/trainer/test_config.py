"""Rules of the tuning section that one key's type cannot hold."""

from dataclasses import asdict

import pytest
from pydantic import ValidationError

from trainer.config import TuningConfig


@pytest.mark.parametrize("values", [{"optimizer": "cpu"}, {"method": "adapter", "optimizer": "cpu"}])
def test_an_adapter_is_not_stepped_on_the_cpu(values: dict[str, str]) -> None:
    """The error stands at the key `optimizer`, and names the two values that go together."""
    with pytest.raises(ValidationError) as raised:
        TuningConfig.model_validate(values)
    (error,) = raised.value.errors()
    assert error["loc"] == ("optimizer",)
    assert error["msg"] == 'must be "device" with tuning.method = "adapter", whose moments are small'


def test_the_weights_themselves_may_be_stepped_on_the_cpu() -> None:
    """In whatever order the keys stand."""
    assert TuningConfig.model_validate({"optimizer": "cpu", "method": "full"}).optimizer == "cpu"
    assert TuningConfig(method="full").optimizer == "device"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kl_weight": 0.1}, 'must be 0 with tuning.method = "full", which holds no copy of the base model'),
        ({"updates_per_batch": 2}, 'must be 1 with tuning.method = "full", whose weights change only by publication'),
    ],
)
def test_what_needs_an_adapter_is_refused_without_one(values: dict[str, float], message: str) -> None:
    """The error stands at the key; with an adapter, in whatever order, and at the neutral value it is taken."""
    (key,) = values
    with pytest.raises(ValidationError) as raised:
        TuningConfig.model_validate({**values, "method": "full"})
    (error,) = raised.value.errors()
    assert (error["loc"], error["msg"]) == ((key,), message)
    taken = TuningConfig.model_validate({**values, "method": "adapter"})
    assert {key: getattr(taken, key)} == values
    assert TuningConfig(method="full").kl_weight == 0


def test_the_learner_gets_the_objective_s_keys() -> None:
    """Each key of the section that the learner's objective has is what it becomes."""
    values = {
        "loss": "cispo",
        "objective": "coupled",
        "clip_low": 0.1,
        "clip_high": 4.0,
        "importance_correction": "sequence_mask",
        "importance_cap": 3.0,
        "kl_weight": 0.05,
    }
    assert asdict(TuningConfig.model_validate(values).learner_objective) == values


def test_a_wrong_method_is_the_only_thing_said_about_it() -> None:
    """What the optimizer must be cannot be told then."""
    with pytest.raises(ValidationError) as raised:
        TuningConfig.model_validate({"method": "half", "optimizer": "cpu"})
    assert [error["loc"] for error in raised.value.errors()] == [("method",)]
