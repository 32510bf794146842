"""Changes to vLLM's own functions that can be seen without its kernels."""

import warnings
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from trainer import vllm_changes

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # vLLM's own imports warn, differently with each version
    from vllm.config.compilation import CUDAGraphMode
    from vllm.v1.worker.gpu.cudagraph_utils import ModelCudaGraphManager
    from vllm.v1.worker.gpu.model_states.default import DefaultModelState


@dataclass(frozen=True)
class Batch:
    """What of vLLM's InputBatch counts here."""

    num_tokens_after_padding: int
    max_query_len: int | None = None


@pytest.mark.parametrize(
    ("captured", "step", "promised", "expected"),
    [
        (CUDAGraphMode.FULL, CUDAGraphMode.FULL, None, 48),
        (CUDAGraphMode.FULL, CUDAGraphMode.FULL, 1, 1),
        (CUDAGraphMode.FULL, CUDAGraphMode.NONE, None, None),
        (CUDAGraphMode.FULL_AND_PIECEWISE, CUDAGraphMode.FULL, None, None),
    ],
    ids=["mixed graph", "promised length", "no graph", "decoding graph"],
)
def test_only_whole_graphs_of_mixed_steps_get_the_length_of_their_capture(
    monkeypatch: pytest.MonkeyPatch,
    captured: CUDAGraphMode,
    step: CUDAGraphMode,
    promised: int | None,
    expected: int | None,
) -> None:
    """A graph for 48 tokens was captured for a query of 48; everything else is told what vLLM tells it."""
    told: list[Any] = []
    monkeypatch.setattr(DefaultModelState, "prepare_attn", lambda state, batch, *rest: told.append((batch, rest)))
    vllm_changes.keep_captured_query_length()
    state = SimpleNamespace(vllm_config=SimpleNamespace(compilation_config=SimpleNamespace(cudagraph_mode=captured)))
    DefaultModelState.prepare_attn(state, Batch(48, promised), step, "tables")
    assert told == [(Batch(48, expected), (step, "tables"))]


def test_every_forward_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once each, before it: the model's own, and a whole graph's replay, which calls no model."""
    seen: list[str] = []
    monkeypatch.setattr(ModelCudaGraphManager, "run_fullgraph", lambda manager, graph: seen.append(graph))
    model = nn.Identity()
    model.register_forward_hook(lambda *_: seen.append("computed"))
    vllm_changes.announce_forwards(model, lambda: seen.append("announced"))
    model(torch.zeros(1))
    ModelCudaGraphManager.run_fullgraph(None, "replayed")
    assert seen == ["announced", "computed", "announced", "replayed"]
