"""Memory of a micro-batch's activations, predicted from a model's shape.

    T  positions that go through the model, padding included (U of trainer.microbatch)        r  LoRA rank
    H  hidden size        I  inner size of the MLP

What autograd saves does not follow from sizes alone: the constants below say where each figure is from.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from trainer.config import TuningConfig
from trainer.microbatch import Shape
from trainer.model_shape import LinearShape, ModelShape, is_targeted

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

_NORMS_SCALE_IN_FP32 = ("Gemma3ForCausalLM",)
_QUERY_INPUTS = ("q_proj", "k_proj", "v_proj")
_INNER_INPUTS = ("gate_proj", "up_proj")


@dataclass(frozen=True, slots=True)
class Activations:
    """What one forward and backward pass holds beside weights and logits."""

    shape: ModelShape
    tuning: TuningConfig
    item_bytes: int
    """Of an activation in the model's precision."""
    on_gpu: bool
    """With fused kernels."""

    def size_bytes(self, microbatch: Shape) -> int:
        """Tensors alive at one time."""
        layers = self.shape.num_layers
        if microbatch.nodes is None:
            return microbatch.positions * (layers * self.saved_bytes_per_position() + self._beside_layers)
        along_paths = microbatch.paths * (layers * self.saved_by_attention() + self._attention_gradients)
        return microbatch.nodes * (layers * self.saved_bytes_per_node() + self._beside_layers) + along_paths

    def basis(self, microbatch: Shape) -> str:
        """How that is computed."""
        layers, rows = self.shape.num_layers, f"{microbatch.rows} × {microbatch.length} positions"
        if microbatch.nodes is None:
            return f"{rows} × ({layers} layers × {self.saved_bytes_per_position():,} B + {self._beside_layers:,} B)"
        node = f"{layers} layers × {self.saved_bytes_per_node():,} B + {self._beside_layers:,} B"
        attention = f"{layers} layers × {self.saved_by_attention():,} B + {self._attention_gradients:,} B"
        return f"({microbatch.nodes} nodes × ({node}) + {rows} × ({attention}))"

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
        return self._saved_beside_attention() + self.saved_by_attention()

    def saved_bytes_per_node(self) -> int:
        """The same of a tree's node, where attention saves for each of B * L positions: o's input is extra then."""
        has_output = any(linear.name.endswith("o_proj") for linear in self._trained_linears())
        query = self.shape.num_heads * self.shape.head_dim
        return self._saved_beside_attention() + has_output * query * self.item_bytes

    def saved_by_attention(self) -> int:
        """Bytes of a layer that attention saves for each position that it sees."""
        shape = self.shape
        query, key_value = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
        return (2 * query + 2 * key_value) * self.item_bytes + shape.num_heads * FP32_BYTES

    def _saved_beside_attention(self) -> int:
        shape, item = self.shape, self.item_bytes
        num_inner = FUSED_INNER_TENSORS_SAVED if self.on_gpu else INNER_TENSORS_SAVED
        features = num_inner * shape.intermediate_size + sum(self._saved_inputs()) + self._low_rank_features()
        return self._saved_by_norms() + features * item

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
            if self.tuning.method == "full" or is_targeted(linear.name, self.tuning.adapter.target_modules):
                yield linear

    @property
    def _beside_layers(self) -> int:
        """Bytes for each of T that are not a layer's: one layer's backward pass, and what is around the head."""
        hidden = (BACKWARD_HIDDEN_TENSORS + HEAD_HIDDEN_TENSORS) * self.shape.hidden_size
        return (BACKWARD_INNER_TENSORS * self.shape.intermediate_size + hidden) * self.item_bytes

    @property
    def _attention_gradients(self) -> int:
        """Bytes for each position that attention sees in a tree: one layer's gradients of queries, keys, values and
        output, and those of keys and values once more in fp32, where they are added up. Derived."""
        shape = self.shape
        query, key_value = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
        return (2 * query + 2 * key_value) * self.item_bytes + 2 * key_value * FP32_BYTES
