"""A step that teaches nothing, so that every kernel of one has been launched before the engine takes requests.

For a kernel's first launch the driver loads it, for which it waits until the device is empty, and lets nobody else
launch meanwhile: beside live requests a run's first step would hold the engine up once for each of its kernels.
"""

import numpy as np

from trainer.batch import TrainingBatch
from trainer.ports import LearnerSettings

_SEQUENCES, _TOKENS = 2, 32


def rehearsal_batch(settings: LearnerSettings, *, max_length: int, temperature: float) -> TrainingBatch:
    """One of short sequences that fits the graphs of these settings. Without advantages its gradient is zero."""
    length = min(max_length, _TOKENS)
    mask = np.zeros((_SEQUENCES, length), np.bool_)
    mask[:, -min(settings.reply_tokens, length // 2) :] = True
    return TrainingBatch(
        token_ids=np.zeros(mask.shape, np.int64),
        mask=mask,
        behaviour_logprobs=np.zeros(mask.shape, np.float32),
        advantages=np.zeros(_SEQUENCES, np.float32),
        temperature=temperature,
        oldest_version=0,
    )
