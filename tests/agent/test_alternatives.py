"""How many replies a brief is answered with."""

import pytest

from agent.alternatives import Alternatives, best_first
from agent.completion import Sampling
from agent.errors import InvalidBrief


def test_best_of_is_what_is_sampled() -> None:
    """Without it, as many as are wanted."""
    assert Alternatives().num_samples == 1
    assert Alternatives(n=3).num_samples == 3
    assert Alternatives(n=3, best_of=5).num_samples == 5


@pytest.mark.parametrize(
    ("n", "best_of", "message"),
    [
        (0, None, "n: must be between 1 and 8, got 0"),
        (9, None, "n: must be between 1 and 8, got 9"),
        (1, 1, "best_of: must be between 2 and 8, got 1"),
        (1, 9, "best_of: must be between 2 and 8, got 9"),
        (4, 3, "n: must not exceed best_of, got 4 > 3"),
    ],
)
def test_numbers_have_bounds(n: int, best_of: int | None, message: str) -> None:
    """The error names the field, the rule, and what came."""
    with pytest.raises(InvalidBrief) as error:
        Alternatives(n, best_of)
    assert str(error.value) == message


def test_several_samples_need_a_temperature() -> None:
    """Greedy replies are all the same one; a single one may be greedy."""
    greedy = Sampling(max_tokens=8, temperature=0.0)
    Alternatives().check(greedy)
    Alternatives(n=2).check(Sampling(max_tokens=8, temperature=0.1))
    with pytest.raises(InvalidBrief, match=r"n: needs a temperature above 0, .* got 2 at 0"):
        Alternatives(n=2).check(greedy)
    with pytest.raises(InvalidBrief, match=r"best_of: needs a temperature above 0, .* got 4 at 0"):
        Alternatives(n=2, best_of=4).check(greedy)


def test_the_best_comes_first_and_what_cannot_be_judged_last() -> None:
    """Equals keep their order; no judgement is worse than the worst one."""
    assert best_first([0.5, None, -1.0, 0.9, 0.5, None]) == [3, 0, 4, 2, 1, 5]
    assert best_first([]) == []
