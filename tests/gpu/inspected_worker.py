"""ColoqWorker that can say at which stream priority the engine's captured kernels run. For tests/gpu only.

A graph's kernel nodes keep the priority of the stream that they were captured on; this reads it back from the driver.
"""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch

from trainer import vllm_changes
from trainer.worker import ColoqWorker


class InspectedWorker(ColoqWorker):
    """Keeps every graph that vLLM captures, so that its nodes can be looked at."""

    def compile_or_warm_up_model(self) -> Any:
        with _kept_graphs() as self._captured:
            return super().compile_or_warm_up_model()

    def captured_priorities(self) -> dict[int, int]:
        """Priority to the number of kernel nodes that have it, over all captured graphs; and the stream's own at 99."""
        counts: Counter[int] = Counter()
        for graph in self._captured:
            counts.update(_priorities(graph))
        return dict(counts) | {99: torch.cuda.current_stream().priority}


class PlainCaptureWorker(InspectedWorker):
    """As vLLM captures by itself, for comparison."""

    def init_device(self) -> None:
        original, vllm_changes.capture_at_engine_priority = vllm_changes.capture_at_engine_priority, lambda: None
        try:
            super().init_device()
        finally:
            vllm_changes.capture_at_engine_priority = original


@contextmanager
def _kept_graphs() -> Generator[list[torch.cuda.CUDAGraph]]:
    kept: list[torch.cuda.CUDAGraph] = []
    original = torch.cuda.CUDAGraph

    class Kept(original):  # type: ignore[misc,valid-type]
        def __new__(cls, *_: Any, **__: Any) -> Any:
            graph = original.__new__(cls, keep_graph=True)
            kept.append(graph)
            return graph

        def __init__(self, *_: Any, **__: Any) -> None:
            super().__init__(keep_graph=True)

    torch.cuda.CUDAGraph = Kept  # type: ignore[misc]
    try:
        yield kept
    finally:
        torch.cuda.CUDAGraph = original  # type: ignore[misc]


def _priorities(graph: torch.cuda.CUDAGraph) -> Generator[int]:
    from cuda.bindings import runtime

    handle = runtime.cudaGraph_t(graph.raw_cuda_graph())
    _, _, count = runtime.cudaGraphGetNodes(handle, 0)
    _, nodes, _ = runtime.cudaGraphGetNodes(handle, count)
    for node in nodes:
        _, kind = runtime.cudaGraphNodeGetType(node)
        if kind == runtime.cudaGraphNodeType.cudaGraphNodeTypeKernel:
            attribute = runtime.cudaLaunchAttributeID.cudaLaunchAttributePriority
            _, value = runtime.cudaGraphKernelNodeGetAttribute(node, attribute)
            yield value.priority
