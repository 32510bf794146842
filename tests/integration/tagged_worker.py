"""ColoqWorker whose weights say which version they are, and that looks at them while the model runs.

A version fills every weight of the model with one value. Before and after each layer's computation the whole of each of
its weights is read, so a step that computes with weights of two versions, or with half a tensor of each, is noticed.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trainer.views import engine_tensors
from trainer.worker import ColoqWorker

_UNIT = 2.0**-10
"""A version's value is this times its number: exact in fp32, and small enough for the model to compute with."""
_TEAR_STEP_S = 0.002


class TaggedWorker(ColoqWorker):
    """Records, for every engine step, the versions found and the number of weights that were looked at."""

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        super().load_model(*args, **kwargs)
        self._steps: list[tuple[list[float], int]] = []
        self._tags: set[float] = set()
        self._looked_at: set[int] = set()
        model = self.get_model()
        weights = engine_tensors(self.vllm_config.model_config.hf_text_config, dict(model.named_parameters()))
        for name, weight in weights.items():
            owner = name.rpartition(".")[0]
            # The head is no layer that runs: vLLM's logits processor reads its weight.
            user = model.get_submodule("logits_processor" if owner == "lm_head" else owner)
            look = self._looking_at(weight)
            user.register_forward_pre_hook(look)
            user.register_forward_hook(look)

    def execute_model(self, scheduler_output: Any) -> Any:
        self._tags.clear()
        self._looked_at.clear()
        output = super().execute_model(scheduler_output)
        if self._looked_at:
            self._steps.append((sorted(self._tags), len(self._looked_at)))
        return output

    def num_weights(self) -> int:
        """Weights of the engine's model."""
        return len(list(self.get_model().parameters()))

    def steps(self) -> list[tuple[list[float], int]]:
        """Versions and number of weights of each engine step since the last call."""
        steps, self._steps = self._steps, []
        return steps

    def keep_tagged(self, version: int) -> None:
        """Have the learner keep a version, ready for ``coloq_restore_live``."""
        live = self._learner()._learner.live_weights()
        self._learner().kept = {version: {name: torch.full_like(t, version * _UNIT) for name, t in live.items()}}

    def step_tagged(self, version: int) -> None:
        """Make a version the learner's newest step, ready for ``coloq_publish_live``."""
        for master in self._learner()._learner.weights.optimizer.masters:
            master.fill_(version * _UNIT)
        self._learner()._newest = version

    def tear(self, version: int) -> None:
        """What must never be done: write a version from another thread, weight by weight, whatever the engine does."""
        live = self._learner()._learner.live_weights()

        def write() -> None:
            for tensor in live.values():
                tensor.fill_(version * _UNIT)
                time.sleep(_TEAR_STEP_S)

        threading.Thread(target=write, daemon=True).start()

    def _looking_at(self, weight: Tensor) -> Callable[..., None]:
        def look(*_: object) -> None:
            self._tags.update(float(extreme) / _UNIT for extreme in weight.aminmax())
            self._looked_at.add(weight.data_ptr())

        return look
