"""Fluency: how probable the untuned model finds a reply, by a copy of it that no training touches.

    value = sigmoid(mean log-probability per token + 4)

The reply is read by itself, as a new paragraph, so that the value says how the text reads and not how it fits its
brief. Means differ between languages by what the tokenizer makes of them, which centring within a prompt's group takes
away. Minus four nats per token are worth one half: SmolLM2-135M-Instruct gives the UDHR -2.5 (ru) to -4.4 (de).

Both sides of a comparison judge with this class, each in the process that scores; on a GPU it computes there, in
bfloat16.
"""

import math
import os
import threading
from collections.abc import Sequence
from typing import Any

from rewards.score import Sample, Score, Ungradable

FLUENCY = "fluency"
MODEL_VARIABLE = "COLOQ_BENCH_FLUENCY_MODEL"
"""Environment variable with the folder of the untuned model: `rewards.extra` makes judges without arguments."""
_CENTRE = 4.0
_OPENING = "\n\n"
_AT_ONCE = 32
_MAX_TOKENS = 512


class FluencyJudge:
    """A reward model. The copy is loaded by the first reply, since the engine's own memory is taken before."""

    name = FLUENCY
    revision = "1"

    def __init__(self) -> None:
        self._folder = os.environ[MODEL_VARIABLE]
        self._base: _Base | None = None
        self._loading = threading.Lock()

    def score(self, samples: Sequence[Sample]) -> list[Score | Ungradable]:
        """See RewardModel.score. A reply without a token is ungradable."""
        with self._loading:
            self._base = self._base or _Base(self._folder)
        means: list[float | None] = []
        for first in range(0, len(samples), _AT_ONCE):
            means += self._base.mean_logprobs([sample.text for sample in samples[first : first + _AT_ONCE]])
        judge = f"{self.name}@{self.revision}"
        return [
            Ungradable("no token to judge", judge) if mean is None else Score(fluency_value(mean), judge)
            for mean in means
        ]


def fluency_value(mean_logprob: float) -> float:
    """The part in (0, 1) for a mean log-probability per token, in nats."""
    return 1 / (1 + math.exp(-(mean_logprob + _CENTRE)))


class _Base:
    """The untuned model and its tokenizer."""

    def __init__(self, folder: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        on_gpu = torch.cuda.is_available()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._opening: list[int] = self._tokenizer(_OPENING)["input_ids"]
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.bfloat16 if on_gpu else torch.float32, attn_implementation="sdpa"
        )
        self._model = model.to("cuda" if on_gpu else "cpu").eval()

    def mean_logprobs(self, texts: Sequence[str]) -> list[float | None]:
        """Mean log-probability per token of each text, in nats; None for one without tokens."""
        import torch

        ids = [self._tokenizer(text, add_special_tokens=False)["input_ids"][:_MAX_TOKENS] for text in texts]
        longest = max(map(len, ids), default=0)
        if longest == 0:
            return [None] * len(texts)
        # Padding stands behind the text, where causal attention keeps it from having an effect.
        rows = [[*self._opening, *row, *self._opening[:1] * (longest - len(row))] for row in ids]
        batch = torch.tensor(rows, device=self._model.device)
        with torch.inference_mode():
            logits = self._model(input_ids=batch).logits[:, -longest - 1 : -1].float()
            logprobs = logits.log_softmax(-1).gather(2, batch[:, -longest:, None])[..., 0].tolist()
        return [sum(row[: len(own)]) / len(own) if own else None for row, own in zip(logprobs, ids, strict=True)]
