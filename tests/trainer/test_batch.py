"""The layout of a training batch."""

from dataclasses import replace

import numpy as np
import pytest

from agent.completion import Sampling
from tests.trainer.samples import completion
from trainer.batch import BUCKET_TOKENS, build_batch
from trainer.group import TrainingSequence


def _sequence(num_prompt: int, num_reply: int, *, advantage: float = 1.0, version: int = 0) -> TrainingSequence:
    prompt, reply = tuple(range(100, 100 + num_prompt)), tuple(range(1, num_reply + 1))
    logprobs = tuple(-0.25 * token for token in reply)
    return TrainingSequence(completion(reply, prompt=prompt, logprobs=logprobs, version=version), advantage, "de")


def test_rows_hold_prompt_reply_and_padding() -> None:
    """Prompt 100 101 102 with reply 1 2, and prompt 100 with reply 1 2 3."""
    batch = build_batch([_sequence(3, 2, advantage=0.5, version=4), _sequence(1, 3, advantage=-0.5, version=3)])
    assert batch.token_ids[:, :6].tolist() == [[100, 101, 102, 1, 2, 0], [100, 1, 2, 3, 0, 0]]
    assert batch.mask[:, :6].astype(int).tolist() == [[0, 0, 0, 1, 1, 0], [0, 1, 1, 1, 0, 0]]
    assert batch.behaviour_logprobs[0, :6].tolist() == [0, 0, 0, -0.25, -0.5, 0]
    assert batch.behaviour_logprobs[1, :6].tolist() == [0, -0.25, -0.5, -0.75, 0, 0]
    assert batch.advantages.tolist() == [0.5, -0.5]
    assert (batch.num_sequences, batch.num_tokens, batch.oldest_version) == (2, 5, 3)


def test_prompt_and_padding_are_never_trained_on() -> None:
    """Outside of the mask there are prompt tokens, zeros and no log-probabilities."""
    batch = build_batch([_sequence(3, 2), _sequence(1, 3)])
    assert set(batch.token_ids[~batch.mask].tolist()) <= {0, 100, 101, 102}
    assert not batch.behaviour_logprobs[~batch.mask].any()
    assert batch.mask.sum(axis=1).tolist() == [2, 3]


@pytest.mark.parametrize(("num_reply", "length"), [(1, 32), (30, 32), (31, 64), (62, 64)])
def test_lengths_are_rounded_up_to_the_bucket(num_reply: int, length: int) -> None:
    """Prompts of two tokens: 32 fit one bucket exactly, 33 need two."""
    batch = build_batch([_sequence(2, num_reply)])
    assert batch.token_ids.shape == (1, length)
    assert length % BUCKET_TOKENS == 0


def test_an_empty_batch_is_an_error() -> None:
    """There would be nothing to take a mean over."""
    with pytest.raises(ValueError, match="at least one sequence"):
        build_batch([])


def test_a_batch_has_one_temperature() -> None:
    """Log-probabilities at two temperatures are of two distributions."""
    warm = completion(sampling=Sampling(16, temperature=0.7))
    with pytest.raises(ValueError, match=r"one temperature, got \[0.7, 1.0\]"):
        build_batch([_sequence(1, 1), TrainingSequence(warm, 1.0, "de")])


def test_arrays_must_agree_in_shape() -> None:
    """A batch whose parts do not belong together is refused where they meet."""
    batch = build_batch([_sequence(1, 1)])
    with pytest.raises(ValueError, match="must agree"):
        replace(batch, advantages=np.zeros(2, np.float32))
