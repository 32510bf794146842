"""What the engine sampled: noted step by step, taken at once, and matched with the reply's tokens."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from vllm.v1.engine import EngineCoreOutput

from trainer.sampled import SampledRow, SampledTokens, StepLogprobs, handed_over, logprobs_of


@dataclass
class Logprobs:
    logprobs: npt.NDArray[np.float32]
    cu_num_generated_tokens: list[int] | None = None


@dataclass
class Output:
    req_ids: list[str]
    sampled_token_ids: list[list[int]]
    logprobs: StepLogprobs | None


def output(rows: dict[str, list[int]], logprobs: list[list[float]], firsts: list[int] | None = None) -> Output:
    return Output(list(rows), list(rows.values()), Logprobs(np.array(logprobs, np.float32), firsts))


def test_a_request_is_taken_with_all_its_steps() -> None:
    """Two requests, two steps; vLLM's random suffix is no part of the name, and what was taken is forgotten."""
    sampled = SampledTokens()
    sampled.note(output({"a-0123abcd": [5], "b-0123abcd": [6]}, [[-0.5], [-1.0]]))
    sampled.note(output({"b-0123abcd": [7], "a-0123abcd": [8]}, [[-1.5], [-2.0]]))
    assert sampled.take(["a", "b", "c"]) == [SampledRow([5, 8], [-0.5, -2.0]), SampledRow([6, 7], [-1.0, -1.5]), None]
    assert sampled.take(["a"]) == [None]


def test_a_replys_end_brings_what_it_sampled() -> None:
    """Beside whatever else comes with it; nothing is kept. A reply of which nothing was noted brings nothing."""
    sampled = SampledTokens()
    sampled.note(output({"a-0123abcd": [5]}, [[-0.5]]))
    end, other = (
        EngineCoreOutput(name, [], kv_transfer_params=given) for name, given in (("a-0123abcd", {"x": 1}), ("b", None))
    )
    sampled.hand_over(end)
    sampled.hand_over(other)
    assert handed_over(end.kv_transfer_params) == SampledRow([5], [-0.5])
    assert end.kv_transfer_params["x"] == 1
    assert handed_over(other.kv_transfer_params) is None
    assert sampled.take(["a"]) == [None]


def test_log_probabilities_go_no_further() -> None:
    """Unless a request asked for the most probable tokens too: then every row has more columns, and all stay."""
    sampled, alone = SampledTokens(), output({"a": [5]}, [[-0.5]])
    sampled.note(alone)
    assert alone.logprobs is None
    wide = output({"a": [6]}, [[-0.5, -0.25]])
    sampled.note(wide)
    assert wide.logprobs is not None
    assert sampled.take(["a"]) == [SampledRow([5, 6], [-0.5, -0.5])]


def test_a_prompt_that_is_read_in_parts_has_no_token_yet() -> None:
    """Its row is there all the same; with several tokens a step the rows are counted."""
    sampled = SampledTokens()
    sampled.note(output({"a": [], "b": [6]}, [[-9.0], [-1.0]]))
    sampled.note(output({"a": [5, 7], "b": [8]}, [[-0.5], [-0.25], [-2.0]], firsts=[0, 2, 3]))
    assert sampled.take(["a", "b"]) == [SampledRow([5, 7], [-0.5, -0.25]), SampledRow([6, 8], [-1.0, -2.0])]


def test_a_name_that_is_used_again_begins_anew() -> None:
    """The first request was aborted."""
    sampled = SampledTokens()
    sampled.note(output({"a-00000001": [5]}, [[-0.5]]))
    sampled.note(output({"a-00000002": [6]}, [[-1.0]]))
    assert sampled.take(["a"]) == [SampledRow([6], [-1.0])]


def test_what_nobody_asks_for_is_forgotten() -> None:
    """Oldest first: of three requests two are kept."""
    sampled = SampledTokens(most_kept=2)
    for name in "abc":
        sampled.note(output({name: [5]}, [[-0.5]]))
    assert [row is None for row in sampled.take(["a", "b", "c"])] == [True, False, False]


def test_discarded_tokens_are_stepped_over() -> None:
    """One behind the last, one that was sampled before a preemption; another token is an error."""
    row = SampledRow([5, 9, 6, 7], [-0.1, -0.2, -0.3, -0.4])
    assert logprobs_of(row, (5, 9, 6)) == [-0.1, -0.2, -0.3]
    assert logprobs_of(row, (5, 6, 7)) == [-0.1, -0.3, -0.4]
    with pytest.raises(ValueError, match="3 tokens must be among the 4 that were sampled"):
        logprobs_of(row, (5, 7, 6))
