"""Memory of vLLM's engine, predicted from a model's shape and the configuration. Nothing is loaded.

    H  hidden size        I  inner size of the MLP        V  vocabulary        r  LoRA rank

Weights, KV cache and adapter slots follow from shapes, as vLLM 0.33 allocates them. What its kernels, its sampler and
its graphs need on the side are the constants below, each marked as derived, estimated or measured.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from service.config import EngineConfig
from trainer.footprint import MemoryLine
from trainer.model_shape import ModelShape

KV_BLOCK_TOKENS = 16
"""vLLM's block of the KV cache."""
CPU_KV_CACHE_GIB = 0.5
"""KV cache of a node on a CPU whose ``engine.kv_cache_gib`` is unset."""
DEFAULT_BATCHED_TOKENS = 2048
"""Tokens per step when ``engine.max_num_batched_tokens`` is unset; vLLM's own default."""
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
_MOST_SPLITS, _SPLIT_TOKENS = 32, 128
"""FlashAttention 3 computes a sequence in parts when too few sequences keep the device busy: at most so many by vLLM's
own default, and never more than there are blocks of so many keys."""
_PIECEWISE_KINDS = 2
"""Where mixed steps are captured piecewise, each size is captured so and whole."""
_LARGEST_PIECEWISE_TOKENS = 512
_SIZES_PER_OCTAVE = 4

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
        return largest_step(self.config, on_gpu=self.on_gpu)

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

    @property
    def _activation_bytes(self) -> int:
        """Of one token in a forward pass."""
        shape = self.shape
        return (HIDDEN_TENSORS * shape.hidden_size + INNER_TENSORS * shape.intermediate_size) * self.item_bytes

    def _activations(self) -> MemoryLine:
        return MemoryLine(
            "engine_activations",
            self.batched_tokens * self._activation_bytes,
            f"{self.batched_tokens:,} tokens × {self._activation_bytes:,} B",
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
        """With adapter slots each is captured again for a batch that uses some. All compute in the same memory."""
        whole = self.config.cuda_graphs == "full"
        tokens = self.batched_tokens
        sizes = whole_graph_sizes(tokens) if whole else piecewise_graph_sizes(self.config.max_num_seqs, tokens)
        each = self.shape.num_layers * GRAPH_BYTES_PER_LAYER
        kinds = (1 if whole else _PIECEWISE_KINDS) * (2 if self.num_adapters else 1)
        token = self._activation_bytes + self._split_bytes
        return MemoryLine(
            "engine_graphs",
            len(sizes) * kinds * each + sizes[-1] * token,
            f"{len(sizes)} sizes × {kinds} kinds × {each:,} B + {sizes[-1]:,} tokens × {token:,} B",
            part="engine",
        )

    @property
    def _split_bytes(self) -> int:
        """Of one token in a graph: attention's parts in fp32, with the logarithm of each part's sum."""
        return attention_splits(self.config) * self.shape.num_heads * (self.shape.head_dim + 1) * 4

    def _padded_vocabulary(self) -> int:
        return -(-self.shape.vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


def step_tokens(config: EngineConfig) -> int:
    """Most tokens of an engine step on a GPU; vLLM wants one for each sequence at the least."""
    return config.max_num_batched_tokens or max(DEFAULT_BATCHED_TOKENS, config.max_num_seqs)


def attention_splits(config: EngineConfig) -> int:
    """Most parts of a sequence in attention, for which every graph has room."""
    return min(_MOST_SPLITS, -(-config.max_model_len // _SPLIT_TOKENS))


def largest_step(config: EngineConfig, *, on_gpu: bool = True) -> int:
    """Tokens of the largest engine step there can be. On a CPU prompts are not split."""
    tokens = step_tokens(config) if on_gpu else max(step_tokens(config), config.max_model_len)
    return min(tokens, config.max_num_seqs * config.max_model_len)


def whole_graph_sizes(max_tokens: int) -> tuple[int, ...]:
    """Tokens of the steps that whole graphs are captured for; a step takes the next larger one.

    They go up to the largest step there is: without one a step is launched kernel by kernel, which holds the engine's
    thread so long that more prompts come in than the next step has a graph for, and so on.
    """
    sizes = {1, 2, 4, *range(8, 64, 8), *range(64, 256, 16)}
    sizes |= {(2**octave // _SIZES_PER_OCTAVE) * step for octave in range(8, 20) for step in range(4, 8)}
    return tuple(sorted({size for size in sizes if size < max_tokens} | {max_tokens}))


def piecewise_graph_sizes(max_num_seqs: int, max_tokens: int) -> tuple[int, ...]:
    """Those of piecewise ones, vLLM's own choice: 1, 2, 4, steps of 8 to 256, then of 16."""
    largest = min(2 * max_num_seqs, _LARGEST_PIECEWISE_TOKENS, max_tokens)
    sizes = {size for size in (1, 2, 4, *range(8, 256, 8), *range(256, largest + 1, 16)) if size <= largest}
    return tuple(sorted({*sizes, *(size for size in (max_num_seqs, max_tokens) if size <= largest)}))
