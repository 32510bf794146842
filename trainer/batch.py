"""A fixed-shape training batch.

B  sequences
L  padded length: prompt and completion together, a multiple of the bucket
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.group import TrainingSequence

BUCKET_TOKENS = 32
"""Lengths are rounded up to a multiple of this, so that few shapes occur."""


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Right-padded sequences. Causal attention never lets a token see the padding after it."""

    token_ids: npt.NDArray[np.int64]
    """[B, L]; padding is 0."""
    mask: npt.NDArray[np.bool_]
    """[B, L]; true on sampled tokens only."""
    behaviour_logprobs: npt.NDArray[np.float32]
    """[B, L]; zero outside ``mask``."""
    advantages: npt.NDArray[np.float32]
    """[B]."""
    temperature: float
    oldest_version: int
    num_masked: int = 0
    """Sequences that add nothing to the loss but count in its means over sequences; they are not in the arrays."""

    def __post_init__(self) -> None:
        shape = self.token_ids.shape
        if self.mask.shape != shape or self.behaviour_logprobs.shape != shape or self.advantages.shape != shape[:1]:
            raise ValueError(
                f"token_ids {shape}, mask {self.mask.shape}, behaviour_logprobs {self.behaviour_logprobs.shape} must "
                f"agree, advantages {self.advantages.shape} must be [B]"
            )

    @property
    def num_sequences(self) -> int:
        return int(self.token_ids.shape[0])

    @property
    def num_tokens(self) -> int:
        """Sampled tokens, which the loss is taken over."""
        return int(self.mask.sum())


def build_batch(sequences: Sequence[TrainingSequence], *, num_masked: int = 0) -> TrainingBatch:
    """Lay sequences out in one batch, from which ``num_masked`` others have been left out.

    Raises:
        ValueError: for no sequences, or sequences sampled at different temperatures.
    """
    if not sequences:
        raise ValueError("a batch needs at least one sequence, got none")
    temperatures = {sequence.completion.sampling.temperature for sequence in sequences}
    if len(temperatures) > 1:
        raise ValueError(f"a batch has one temperature, got {sorted(temperatures)}")
    longest = max(len(s.completion.prompt_token_ids) + len(s.completion.token_ids) for s in sequences)
    shape = (len(sequences), -(-longest // BUCKET_TOKENS) * BUCKET_TOKENS)
    token_ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
    logprobs = np.zeros(shape, np.float32)
    for row, sequence in enumerate(sequences):
        completion = sequence.completion
        start = len(completion.prompt_token_ids)
        end = start + len(completion.token_ids)
        token_ids[row, :start] = completion.prompt_token_ids
        token_ids[row, start:end] = completion.token_ids
        mask[row, start:end] = True
        logprobs[row, start:end] = completion.logprobs
    return TrainingBatch(
        token_ids=token_ids,
        mask=mask,
        behaviour_logprobs=logprobs,
        advantages=np.asarray([s.advantage for s in sequences], np.float32),
        temperature=temperatures.pop(),
        oldest_version=min(s.completion.versions.first for s in sequences),
        num_masked=num_masked,
    )
