"""What a completion says of how it was sampled."""

from dataclasses import replace

import pytest

from agent.completion import Bias, Sampling

PLAIN = Sampling(max_tokens=8, temperature=0.7, seed=3, stop=("x",))


def test_temperature_seed_and_stop_strings_bias_nothing() -> None:
    """The trainer divides its logits by the temperature; which token is drawn and where a reply ends change no
    probability."""
    assert PLAIN.bias is None
    assert replace(PLAIN, temperature=1.9).bias is None


@pytest.mark.parametrize(
    ("change", "bias"),
    [
        ({"temperature": 0.0}, Bias.GREEDY),
        ({"temperature": 0.009}, Bias.GREEDY),
        ({"top_p": 0.99}, Bias.TOP_P),
        ({"top_k": 40}, Bias.TOP_K),
        ({"min_p": 0.05}, Bias.MIN_P),
        ({"repetition_penalty": 1.1}, Bias.PENALTIES),
        ({"presence_penalty": 0.5}, Bias.PENALTIES),
        ({"frequency_penalty": -0.5}, Bias.PENALTIES),
    ],
)
def test_what_changes_the_distribution_is_named(change: dict[str, float], bias: Bias) -> None:
    """vLLM samples temperatures below 0.01 at 0.01 and keeps saying what was asked for, so they count as greedy."""
    assert replace(PLAIN, **change).bias is bias  # type: ignore[arg-type]  # fields of three types
