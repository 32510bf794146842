"""Memory of training, predicted from a model's shape: nothing is loaded and no device is asked.

    P  trained parameters        T  positions of a micro-batch, padding included        r  LoRA rank
    H  hidden size               I  inner size of the MLP                               V  vocabulary

Sizes of weights, gradients and optimizer state follow from the shapes. What autograd saves, what graphs keep and what
a kernel needs on the side does not: those figures are the constants below, each marked as derived, estimated or
measured. Knows nothing of the engine, which has its own footprint (service.engine_footprint).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from trainer.config import TuningConfig
from trainer.lanes import PARTITION_SHARES
from trainer.microbatch import bucket_length, graph_shapes, rows_of
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

FP32_BYTES = 4
INNER_TENSORS_SAVED = 3
"""Tensors of [T, I] that Hugging Face's gated MLP keeps: gate, its activation, up. The input of `down_proj` is extra.
Derived, and equal to what autograd saves on a CPU."""
FUSED_INNER_TENSORS_SAVED = 2
"""Those that the fused MLP of a GPU keeps (trainer.kernels): gate and up. Derived."""
BACKWARD_INNER_TENSORS = 2
"""Tensors of [T, I] alive at one time in a layer's backward pass, beside what was saved. Estimated."""
BACKWARD_HIDDEN_TENSORS = 3
"""Tensors of [T, H] alive at one time in a layer's backward pass, beside what was saved. Estimated."""
HEAD_HIDDEN_TENSORS = 3
"""Tensors of [T, H] around the head: last hidden states, their gradient formed in the forward, and its scaled copy.
Derived."""
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

_NORMS_SCALE_IN_FP32 = ("Gemma3ForCausalLM",)
_QUERY_INPUTS = ("q_proj", "k_proj", "v_proj")
_INNER_INPUTS = ("gate_proj", "up_proj")


@dataclass(frozen=True, slots=True)
class LinearShape:
    """A linear layer that ``count`` decoder layers hold."""

    name: str
    """Path inside a decoder layer: ``self_attn.q_proj``."""
    in_features: int
    out_features: int
    count: int


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a decoder-only language model."""

    architecture: str
    """Hugging Face's class: ``Qwen2ForCausalLM``."""
    num_parameters: int
    """All parameters; tied ones count once."""
    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    tied_head: bool
    norm_features: int
    """Features that the norms of one decoder layer normalise, per position."""
    norm_rows: int
    """Rows that they normalise, per position: one for each norm of hidden size, one per head for a head's norm."""
    linears: tuple[LinearShape, ...]
    """Linear layers of the decoder layers; the head is none of them."""

    @property
    def largest_matrix(self) -> int:
        """Elements of the largest weight matrix."""
        return max(self.vocab_size * self.hidden_size, *(x.in_features * x.out_features for x in self.linears))

    def adapter_parameters(self, rank: int, target_modules: Sequence[str] | None = None) -> int:
        """Weights of one LoRA adapter on the targeted layers; on every linear layer when there are no targets."""
        return sum(
            linear.count * rank * (linear.in_features + linear.out_features)
            for linear in self.linears
            if target_modules is None or _is_targeted(linear.name, target_modules)
        )


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
    def num_trained(self) -> int:
        if self.tuning.method == "full":
            return self.shape.num_parameters
        return self.shape.adapter_parameters(self.tuning.adapter.rank, self.tuning.adapter.target_modules)

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """(B, L, R) of micro-batches: those that graphs are kept of on a GPU, the longest one on a CPU."""
        tuning = self.tuning
        suiting = suiting_microbatch_tokens(self.shape.num_parameters, on_gpu=self.on_gpu)
        tokens = tuning.microbatch_tokens or suiting
        if self.on_gpu:
            return graph_shapes(self.longest_tokens, tuning.max_tokens, tokens=tokens)
        length = bucket_length(self.longest_tokens)
        rows = rows_of(length, tokens=tokens)
        return [(rows, length, bucket_length(tuning.max_tokens))]

    @property
    def largest_shape(self) -> tuple[int, int, int]:
        """Of most positions."""
        return max(self.shapes, key=lambda shape: shape[0] * shape[1])

    @property
    def num_scoring_passes(self) -> int:
        """Forward passes before a step's first update: of the policy that it begins with, and of the base model. Their
        activations are freed layer by layer, in the memory that the update has."""
        repeats = self.tuning.updates_per_batch > 1 and self.tuning.objective == "decoupled"
        return int(repeats) + int(self.tuning.kl_weight > 0)

    @property
    def positions(self) -> int:
        """T: of the largest micro-batch."""
        rows, length, _ = self.largest_shape
        return rows * length

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

    def saved_bytes_per_position(self) -> int:
        """What autograd saves of one decoder layer, without checkpointing; every tensor is counted once.

        norms               the input in fp32, the inverse root of each row in fp32; a trained norm also its product
                            with that root. Fused: the input as it is and the roots
        linear inputs       q, k and v share one, gate and up another, o has attention's output, down the product of
                            the MLP. A frozen layer saves none; an adapter or a trained weight on it does
        attention           q, k, v after the rotation, the output, logsumexp in fp32. Rotation and softmax save nothing
        MLP                 gate, its activation, up. Fused: gate and up
        adapter             x A^T of every targeted layer: r

        A GPU has the fused kernels (trainer.kernels), a CPU has Hugging Face's own code.
        """
        shape, item = self.shape, self.item_bytes
        query, key_value = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
        attention = (2 * query + 2 * key_value) * item + shape.num_heads * FP32_BYTES
        num_inner = FUSED_INNER_TENSORS_SAVED if self.on_gpu else INNER_TENSORS_SAVED
        features = num_inner * shape.intermediate_size + sum(self._saved_inputs()) + self._low_rank_features()
        return self._saved_by_norms() + attention + features * item

    def _saved_by_norms(self) -> int:
        shape, item = self.shape, self.item_bytes
        roots = shape.norm_rows * FP32_BYTES
        if self.on_gpu:
            return shape.norm_features * item + roots
        product = FP32_BYTES if shape.architecture in _NORMS_SCALE_IN_FP32 else item
        each = FP32_BYTES + (product if self.tuning.method == "full" else 0)
        return shape.norm_features * each + roots

    def _saved_inputs(self) -> Iterator[int]:
        """Features of each distinct input that is saved; attention's output is counted with attention."""
        leaves = {linear.name.rpartition(".")[2]: linear for linear in self._trained_linears()}
        for group in (_QUERY_INPUTS, _INNER_INPUTS):
            if any(leaf in leaves for leaf in group):
                yield self.shape.hidden_size
        for leaf, linear in leaves.items():
            if leaf not in (*_QUERY_INPUTS, *_INNER_INPUTS, "o_proj"):
                yield linear.in_features

    def _low_rank_features(self) -> int:
        if self.tuning.method == "full":
            return 0
        return self.tuning.adapter.rank * sum(1 for _ in self._trained_linears())

    def _trained_linears(self) -> Iterator[LinearShape]:
        for linear in self.shape.linears:
            if self.tuning.method == "full" or _is_targeted(linear.name, self.tuning.adapter.target_modules):
                yield linear

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
        shape, item = self.shape, self.item_bytes
        saved = self.saved_bytes_per_position()
        hidden = (BACKWARD_HIDDEN_TENSORS + HEAD_HIDDEN_TENSORS) * shape.hidden_size
        beside = (BACKWARD_INNER_TENSORS * shape.intermediate_size + hidden) * item
        rows, length, _ = self.largest_shape
        return MemoryLine(
            "activations",
            self._in_pools(self.positions * (shape.num_layers * saved + beside)),
            f"{rows} × {length} positions × ({shape.num_layers} layers × {saved:,} B + {beside:,} B){self._pools_text}",
        )

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


def _is_targeted(name: str, target_modules: Sequence[str]) -> bool:
    return any(f".{name}".endswith(f".{target}") for target in target_modules)
