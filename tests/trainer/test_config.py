"""Rules of the tuning section that one key's type cannot hold."""

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


def test_a_wrong_method_is_the_only_thing_said_about_it() -> None:
    """What the optimizer must be cannot be told then."""
    with pytest.raises(ValidationError) as raised:
        TuningConfig.model_validate({"method": "half", "optimizer": "cpu"})
    assert [error["loc"] for error in raised.value.errors()] == [("method",)]
