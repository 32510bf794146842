"""Sizes of a decoder-only language model, as far as memory depends on them. Nothing is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass


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
            if target_modules is None or is_targeted(linear.name, target_modules)
        )


def is_targeted(name: str, target_modules: Sequence[str]) -> bool:
    """Whether a linear layer, by its path inside a decoder layer, is one of the modules that an adapter names."""
    return any(f".{name}".endswith(f".{target}") for target in target_modules)
