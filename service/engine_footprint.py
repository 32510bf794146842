"""Memory of vLLM's engine, predicted from a model's shape and the configuration. Nothing is loaded.

    H  hidden size        I  inner size of the MLP        V  vocabulary        r  LoRA rank

Weights, KV cache and adapter slots follow from shapes, as vLLM 0.33 allocates them. What its kernels, its sampler and
its graphs need on the side are the constants below, each marked as derived, estimated or measured.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from service.config import EngineConfig
from trainer.footprint import MemoryLine, ModelShape

KV_BLOCK_TOKENS = 16
"""vLLM's block of the KV cache."""
CPU_KV_CACHE_GIB = 0.5
"""KV cache of a node on a CPU whose ``engine.kv_cache_gib`` is unset."""
DEFAULT_BATCHED_TOKENS = 2048
"""vLLM's tokens per step when ``engine.max_num_batched_tokens`` is unset."""
VOCABULARY_MULTIPLE = 64
"""vLLM pads the vocabulary's rows to a multiple of this."""
HIDDEN_TENSORS = 3
"""[tokens, H] alive at one time in a forward pass: residual, normed input, output. Derived."""
INNER_TENSORS = 3
"""[tokens, I] alive at one time: gate and up in one tensor, their product. Derived."""
SAMPLER_BYTES_PER_LOGIT = 28
"""fp32 logits, their sorted copy with 8-byte indices, probabilities, running sums and log-probabilities. Estimated."""
GRAPH_BYTES_PER_LAYER = 128 * 2**10
"""What the driver keeps for one layer in one captured graph. Estimated."""
GRAPH_KINDS = 2
"""Each size is captured piecewise and whole; with adapter slots, again for a batch that uses some."""
_LARGEST_GRAPH_TOKENS = 512

_FUSED_LAYERS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers that are one in vLLM: slots for one of them are slots for all."""


@dataclass(frozen=True, slots=True)
class EngineFootprint:
    """What vLLM will hold."""

    shape: ModelShape
    config: EngineConfig
    num_adapters: int
    """Slots; 0 where the weights themselves are tuned."""
    adapter_rank: int
    target_modules: tuple[str, ...]
    """Layers that adapters may change."""
    on_gpu: bool

    @property
    def item_bytes(self) -> int:
        """Of a weight or activation: `auto` is always a 16-bit type, since vLLM rounds fp32 models down."""
        return 4 if self.config.dtype == "float32" else 2

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of every layer; a sliding-window layer counts in full."""
        return self.shape.num_layers * 2 * self.shape.num_kv_heads * self.shape.head_dim * self.item_bytes

    @property
    def kv_block_bytes(self) -> int:
        return KV_BLOCK_TOKENS * self.kv_bytes_per_token

    @property
    def batched_tokens(self) -> int:
        """Tokens of the largest engine step."""
        config = self.config
        tokens = config.max_num_batched_tokens or DEFAULT_BATCHED_TOKENS
        if not self.on_gpu:  # prompts are not split there
            tokens = max(tokens, config.max_model_len)
        return min(tokens, config.max_num_seqs * config.max_model_len)

    def kv_cache_bytes(self, num_sequences: int) -> int:
        """Cache that holds so many sequences of full length, and the block that vLLM keeps empty."""
        blocks = -(-self.config.max_model_len // KV_BLOCK_TOKENS)
        return (num_sequences * blocks + 1) * self.kv_block_bytes

    def kv_cache_tokens(self, size_bytes: int) -> int:
        """Tokens that a cache of this size holds."""
        return size_bytes // self.kv_block_bytes * KV_BLOCK_TOKENS

    def weights(self) -> MemoryLine:
        """One copy, which training uses too."""
        shape, item = self.shape, self.item_bytes
        padding = (self._padded_vocabulary() - shape.vocab_size) * shape.hidden_size * (1 if shape.tied_head else 2)
        count = f"{shape.num_parameters:,} parameters{f' + {padding:,} of padding' if padding else ''}"
        size = (shape.num_parameters + padding) * item
        return MemoryLine("weights", size, f"{count} × {item} B", part="engine")

    def lines(self) -> Iterator[MemoryLine]:
        """All but weights and KV cache."""
        if self.num_adapters:
            yield self._adapter_slots()
        yield self._activations()
        yield self._sampler()
        if self.on_gpu and not self.config.enforce_eager:
            yield self._graphs()

    def _adapter_slots(self) -> MemoryLine:
        """lora_a_stacked and lora_b_stacked of every layer that adapters may change."""
        targets = set(self.target_modules)
        wrapped = targets.union(*(layers for layers in _FUSED_LAYERS if targets.intersection(layers)))
        each = self.shape.adapter_parameters(self.adapter_rank, tuple(sorted(wrapped)))
        return MemoryLine(
            "adapter_slots",
            self.num_adapters * each * self.item_bytes,
            f"{self.num_adapters} slots × {each:,} weights × {self.item_bytes} B, rank {self.adapter_rank}",
            part="engine",
        )

    def _activations(self) -> MemoryLine:
        shape, item = self.shape, self.item_bytes
        each = (HIDDEN_TENSORS * shape.hidden_size + INNER_TENSORS * shape.intermediate_size) * item
        return MemoryLine(
            "engine_activations",
            self.batched_tokens * each,
            f"{self.batched_tokens:,} tokens × {each:,} B",
            part="engine",
        )

    def _sampler(self) -> MemoryLine:
        each = self.item_bytes + SAMPLER_BYTES_PER_LOGIT
        return MemoryLine(
            "sampler",
            self.config.max_num_seqs * self.shape.vocab_size * each,
            f"{self.config.max_num_seqs} sequences × {self.shape.vocab_size:,} logits × {each} B",
            part="engine",
        )

    def _graphs(self) -> MemoryLine:
        sizes = captured_sizes(self.config.max_num_seqs, self.batched_tokens)
        each = self.shape.num_layers * GRAPH_BYTES_PER_LAYER
        kinds = GRAPH_KINDS * (2 if self.num_adapters else 1)
        return MemoryLine(
            "engine_graphs",
            len(sizes) * kinds * each,
            f"{len(sizes)} sizes × {kinds} kinds × {each:,} B",
            part="engine",
        )

    def _padded_vocabulary(self) -> int:
        return -(-self.shape.vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


def captured_sizes(max_num_seqs: int, max_tokens: int) -> tuple[int, ...]:
    """Batch sizes that vLLM captures graphs for by default: 1, 2, 4, steps of 8 to 256, then of 16."""
    largest = min(2 * max_num_seqs, _LARGEST_GRAPH_TOKENS, max_tokens)
    sizes = {size for size in (1, 2, 4, *range(8, 256, 8), *range(256, largest + 1, 16)) if size <= largest}
    return tuple(sorted({*sizes, *(size for size in (max_num_seqs, max_tokens) if size <= largest)}))
