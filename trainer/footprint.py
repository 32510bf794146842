"""Memory of training, predicted from a model's shape: nothing is loaded and no device is asked.

    P  trained parameters        V  vocabulary

Sizes of weights, gradients and optimizer state follow from the shapes. What autograd saves (trainer.activations), what
graphs keep and what a kernel needs on the side does not: those figures are constants, each marked as derived, estimated
or measured. Knows nothing of the engine, which has its own footprint (service.engine_footprint).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from trainer.activations import Activations
from trainer.config import TuningConfig
from trainer.cut_trees import MOST_PATHS
from trainer.cutting import Cut
from trainer.lanes import PARTITION_SHARES
from trainer.lengths import bucket_length, rows_of
from trainer.microbatch import Shape
from trainer.model_shape import ModelShape
from trainer.ports import suiting_microbatch_tokens

NUM_PARTITIONS = len(PARTITION_SHARES)
"""Green contexts (trainer.lanes); a step is captured for each of them and for the whole GPU."""
CANDIDATE_SLOTS = 2
"""Adapter slots for the newest candidate and its successor, beside the active policy and those kept."""

MASTER_BYTES = 4
"""Per trained parameter: the fp32 master."""
MOMENT_BYTES = 8
"""Per trained parameter: AdamW's two fp32 moments."""
GRADIENT_SUM_BYTES = 4
"""Per trained parameter: the gradient summed over micro-batches, fp32, on the model's device. The CPU's optimizer
returns new weights in the same memory."""

LOGIT_COPIES = 2
"""[chunk, V] in the model's precision alive at one time: a chunk's logits, and the residual of the one before.
Derived."""
CPU_LOGIT_BYTES = 8
"""Per logit, beside those copies: fp32 logits and residual, which a GPU's kernel never stores. Derived."""
LARGEST_GRADIENTS = 2
"""`full`: gradients of the largest matrix alive at one time, in the model's precision. Each one is freed as soon as it
is added to the sums; a tied embedding gets a second one from the head. Derived."""
GRAPH_POOL_OVERHEAD = 1.15
"""Memory that a graph's pool reserves over what its tensors need at one time. Calibrated on one H100 (1.5B shape, rank
16, 4,096 positions); `memory_measured` in a node's log says how well it holds elsewhere."""
TRANSFER_PIECE = 2**21
"""Elements of a piece that travels between the GPU and the CPU's optimizer (trainer.cpu_adam)."""
TRANSFER_BUFFERS = 4
"""Pinned buffers of a piece, in each direction."""
GRAPH_BYTES_PER_LAYER = 512 * 2**10
"""What the driver keeps for one layer's forward and backward kernels in one captured graph. Estimated."""
FORWARD_GRAPH_SHARE = 1 / 3
"""Of those bytes, for a forward pass without backward: kernels of a backward pass are two for each forward one."""


@dataclass(frozen=True, slots=True)
class MemoryLine:
    """One part of a memory plan."""

    name: str
    size_bytes: int
    basis: str
    """How the size was computed."""
    on_host: bool = False
    """Host memory, where the plan is for a GPU."""
    part: Literal["engine", "training", "judges", "device"] = "training"
    """What of the node needs it."""


@dataclass(frozen=True, slots=True)
class TrainingFootprint:
    """What the learner will hold."""

    shape: ModelShape
    tuning: TuningConfig
    longest_tokens: int
    """Longest sequence: prompt and reply together."""
    item_bytes: int
    """Of a weight or activation in the model's precision."""
    on_gpu: bool
    """With fused kernels, and steps captured as CUDA graphs."""

    @property
    def activations(self) -> Activations:
        """Of any micro-batch."""
        return Activations(self.shape, self.tuning, self.item_bytes, self.on_gpu)

    @property
    def num_trained(self) -> int:
        if self.tuning.method == "full":
            return self.shape.num_parameters
        return self.shape.adapter_parameters(self.tuning.adapter.rank, self.tuning.adapter.target_modules)

    @property
    def shapes(self) -> list[Shape]:
        """Of micro-batches: those that graphs are kept of on a GPU, the longest ones on a CPU."""
        tuning = self.tuning
        suiting = suiting_microbatch_tokens(self.shape.num_parameters, on_gpu=self.on_gpu)
        how = Cut(tuning.microbatch_tokens or suiting, tuning.group_size if tuning.share_prefixes else 1)
        if self.on_gpu:
            return how.shapes(self.longest_tokens, tuning.max_tokens)
        length, width = bucket_length(self.longest_tokens), bucket_length(tuning.max_tokens)
        apart = Shape(rows_of(length, tokens=how.tokens), length, width)
        if how.siblings == 1:
            return [apart]
        return [apart, Shape(rows_of(length, tokens=MOST_PATHS * how.tokens), length, width, max(how.tokens, length))]

    @property
    def largest_shape(self) -> Shape:
        """Of the most activations."""
        return max(self.shapes, key=self.activations.size_bytes)

    @property
    def num_scoring_passes(self) -> int:
        """Forward passes before a step's first update: of the policy that it begins with, and of the base model. Their
        activations are freed layer by layer, in the memory that the update has."""
        repeats = self.tuning.updates_per_batch > 1 and self.tuning.objective == "decoupled"
        return int(repeats) + int(self.tuning.kl_weight > 0)

    @property
    def positions(self) -> int:
        """T: of the largest micro-batch."""
        return self.largest_shape.positions

    def lines(self) -> Iterator[MemoryLine]:
        """In the order in which they are placed: what a run cannot do without first, the optimizer last."""
        if self.tuning.method == "adapter":
            yield self._kept_adapters()
            yield self._trained_adapter()
        else:
            yield self._last_good()
            yield self._largest_gradients()
        yield self._activations()
        yield self._logits()
        if self.on_gpu:
            yield self._graphs()
        yield self._gradients()
        yield self._optimizer()

    def _kept_adapters(self) -> MemoryLine:
        versions, item = num_adapter_slots(self.tuning), self.item_bytes
        return MemoryLine(
            "kept_versions",
            versions * self.num_trained * item,
            f"{versions} adapters × {self.num_trained:,} weights × {item} B",
        )

    def _trained_adapter(self) -> MemoryLine:
        return MemoryLine(
            "trained_weights",
            self.num_trained * self.item_bytes,
            f"{self.num_trained:,} weights × {self.item_bytes} B, rank {self.tuning.adapter.rank}",
        )

    def _last_good(self) -> MemoryLine:
        return MemoryLine(
            "kept_versions",
            self.num_trained * self.item_bytes,
            f"{self.num_trained:,} weights × {self.item_bytes} B, the last good ones",
            on_host=self.tuning.full.last_good == "host",
        )

    def _largest_gradients(self) -> MemoryLine:
        largest, item = self.shape.largest_matrix, self.item_bytes
        return MemoryLine(
            "largest_gradients",
            LARGEST_GRADIENTS * largest * item,
            f"{LARGEST_GRADIENTS} × {largest:,} weights × {item} B; the others are freed one by one",
        )

    def _activations(self) -> MemoryLine:
        shape = self.largest_shape
        size = self._in_pools(self.activations.size_bytes(shape))
        return MemoryLine("activations", size, f"{self.activations.basis(shape)}{self._pools_text}")

    def _in_pools(self, size_bytes: int) -> int:
        """What tensors of this size, alive at one time, reserve: on a GPU in the arena that all graphs share."""
        return int(size_bytes * GRAPH_POOL_OVERHEAD) if self.on_gpu else size_bytes

    @property
    def _pools_text(self) -> str:
        return f" × {GRAPH_POOL_OVERHEAD}" if self.on_gpu else ""

    def _logits(self) -> MemoryLine:
        rows = min(self.tuning.logit_chunk_tokens, self.positions)
        each = LOGIT_COPIES * self.item_bytes + (0 if self.on_gpu else CPU_LOGIT_BYTES)
        return MemoryLine(
            "logits",
            self._in_pools(rows * self.shape.vocab_size * each),
            f"{rows} rows × {self.shape.vocab_size:,} tokens × {each} B{self._pools_text}",
        )

    def _graphs(self) -> MemoryLine:
        """What they compute with is the activations' line."""
        passes = 1 + FORWARD_GRAPH_SHARE * self.num_scoring_passes
        each = int(self.shape.num_layers * GRAPH_BYTES_PER_LAYER * passes)
        num_shapes, lanes = len(self.shapes), NUM_PARTITIONS + 1
        return MemoryLine(
            "training_graphs", num_shapes * lanes * each, f"{num_shapes} shapes × {lanes} lanes × {each:,} B"
        )

    def _gradients(self) -> MemoryLine:
        each = GRADIENT_SUM_BYTES
        return MemoryLine("gradients", self.num_trained * each, f"{self.num_trained:,} sums × {each} B")

    def _optimizer(self) -> MemoryLine:
        size = self.num_trained * (MASTER_BYTES + MOMENT_BYTES)
        basis = f"{self.num_trained:,} parameters × ({MASTER_BYTES} B master + {MOMENT_BYTES} B moments)"
        if self.tuning.method == "adapter" or self.tuning.optimizer == "device":
            return MemoryLine("masters_and_moments", size, basis)
        buffers = TRANSFER_BUFFERS * TRANSFER_PIECE * (GRADIENT_SUM_BYTES + self.item_bytes)
        return MemoryLine(
            "masters_and_moments", size + buffers, f"{basis} + {buffers:,} B of pinned buffers", on_host=True
        )


def num_adapter_slots(tuning: TuningConfig) -> int:
    """Adapter slots of the engine, and versions that the learner keeps: those kept, the active one, the candidates."""
    return tuning.keep_adapters + 1 + CANDIDATE_SLOTS
