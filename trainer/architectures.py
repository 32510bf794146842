"""Where every parameter of a Hugging Face model lives in vLLM's: one explicit map per architecture that is served.

    Hugging Face                 engine            rows of the engine's parameter
    ─────────────────────        ────────────      ───────────────────────────────────────────────
    q_proj, k_proj, v_proj       qkv_proj          [q | k | v], each its heads * head_dim
    gate_proj, up_proj           gate_up_proj      [gate | up], each intermediate_size
    embed_tokens, lm_head        the same          the first vocab_size; padding follows
    o_proj, down_proj, norms     the same          all

Tied embeddings have no lm_head on either side. The architectures differ in their norms and biases. This is about names
and row numbers: it knows no tensors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from transformers import PretrainedConfig

from agent.errors import TrainerFailed


@dataclass(frozen=True, slots=True)
class Home:
    """Rows ``start`` to ``stop`` of one of the engine's parameters, whose name has no ``.base_layer``."""

    parameter: str
    start: int
    stop: int
    padded: bool = False
    """The engine's parameter may have further rows, which stand for no token."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a decoder has beside the linear layers that all of them share."""

    name: str
    """vLLM's and Hugging Face's class, as in ``config.architectures``."""
    model_type: str
    """Its configuration's ``model_type``."""
    hidden_norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    """Norms of a layer over the hidden size."""
    head_norms: tuple[str, ...] = ()
    """Norms of a layer's attention over one head."""
    biased: frozenset[str] = frozenset()
    """Linear layers that always have a bias."""
    biased_if: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Linear layers that have a bias when this key of the configuration is true."""

    def homes(self, config: PretrainedConfig) -> dict[str, Home]:
        """The home of every parameter of the Hugging Face model, by its name there."""
        vocabulary = ["model.embed_tokens.weight"] + ["lm_head.weight"] * (not config.tie_word_embeddings)
        homes = {name: Home(name, 0, config.vocab_size, padded=True) for name in vocabulary}
        homes["model.norm.weight"] = Home("model.norm.weight", 0, config.hidden_size)
        for layer in range(config.num_hidden_layers):
            homes |= self._linear_homes(f"model.layers.{layer}", config)
            homes |= self._norm_homes(f"model.layers.{layer}", config)
        return homes

    def _linear_homes(self, layer: str, config: PretrainedConfig) -> dict[str, Home]:
        homes: dict[str, Home] = {}
        rows = _linear_rows(config)
        for fused, parts in _FUSED.items():
            ends = list(accumulate(rows[_leaf(part)] for part in parts))
            for part, start, stop in zip(parts, [0, *ends[:-1]], ends, strict=True):
                for kind in ("weight", "bias") if self._has_bias(_leaf(part), config) else ("weight",):
                    homes[f"{layer}.{part}.{kind}"] = Home(f"{layer}.{fused}.{kind}", start, stop)
        return homes

    def _norm_homes(self, layer: str, config: PretrainedConfig) -> dict[str, Home]:
        sizes = {f"{layer}.{norm}.weight": config.hidden_size for norm in self.hidden_norms}
        sizes |= {f"{layer}.self_attn.{norm}.weight": _head_dim(config) for norm in self.head_norms}
        return {name: Home(name, 0, size) for name, size in sizes.items()}

    def _has_bias(self, linear: str, config: PretrainedConfig) -> bool:
        return linear in self.biased or any(
            linear in linears and getattr(config, key) for key, linears in self.biased_if.items()
        )


def architecture_of(config: PretrainedConfig) -> Architecture:
    """The architecture of a text configuration: what it names, or else what its ``model_type`` stands for.

    Raises:
        TrainerFailed: there is no map for it, or name and ``model_type`` contradict each other.
    """
    named = next(iter(config.architectures or ()), None)
    for architecture in _ARCHITECTURES:
        if named == architecture.name or (named is None and config.model_type == architecture.model_type):
            if config.model_type != architecture.model_type:
                raise TrainerFailed(
                    f"cannot train a {named}: its model_type must be {architecture.model_type}, got {config.model_type}"
                )
            return architecture
    known = ", ".join(architecture.name for architecture in _ARCHITECTURES)
    raise TrainerFailed(f"cannot train a {named or config.model_type}: the architecture must be one of {known}")


def adapter_slot(module: str) -> tuple[str, int]:
    """The engine's module that holds the LoRA update of a linear layer, and which of its slices that is.

    Holds for every architecture here: ``model.layers.3.self_attn.k_proj`` is slice 1 of
    ``model.layers.3.self_attn.qkv_proj``, ``o_proj`` is slice 0 of itself.

    Raises:
        TrainerFailed: the module is not a linear layer of a decoder layer.
    """
    for fused, parts in _FUSED.items():
        for index, part in enumerate(parts):
            if module.endswith(f".{part}"):
                return f"{module.removesuffix(part)}{fused}", index
    raise TrainerFailed(f"an adapter's module must end in one of {', '.join(sorted(_LINEARS))}, got {module}")


def _head_dim(config: PretrainedConfig) -> int:
    """Of one attention head; some configurations set it apart from hidden_size / num_attention_heads."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _linear_rows(config: PretrainedConfig) -> dict[str, int]:
    """Output size of each linear layer."""
    key_value = config.num_key_value_heads * _head_dim(config)
    return {
        "q_proj": config.num_attention_heads * _head_dim(config),
        "k_proj": key_value,
        "v_proj": key_value,
        "o_proj": config.hidden_size,
        "gate_proj": config.intermediate_size,
        "up_proj": config.intermediate_size,
        "down_proj": config.hidden_size,
    }


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


_FUSED = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o_proj": ("self_attn.o_proj",),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj": ("mlp.down_proj",),
}
"""The engine's linear layers of a decoder layer, and the Hugging Face ones whose rows each stacks, in order."""
_LINEARS = frozenset(_leaf(part) for parts in _FUSED.values() for part in parts)
_QUERY_KEY_VALUE = frozenset({"q_proj", "k_proj", "v_proj"})
_ATTENTION = _QUERY_KEY_VALUE | {"o_proj"}

_ARCHITECTURES = (
    Architecture(
        name="Gemma3ForCausalLM",
        model_type="gemma3_text",
        hidden_norms=(
            "input_layernorm",
            "post_attention_layernorm",
            "pre_feedforward_layernorm",
            "post_feedforward_layernorm",
        ),
        head_norms=("q_norm", "k_norm"),
        biased_if={"attention_bias": _ATTENTION},
    ),
    Architecture(
        name="LlamaForCausalLM",
        model_type="llama",
        biased_if={"attention_bias": _ATTENTION, "mlp_bias": _LINEARS - _ATTENTION},
    ),
    Architecture(name="MistralForCausalLM", model_type="mistral"),
    Architecture(name="Qwen2ForCausalLM", model_type="qwen2", biased=_QUERY_KEY_VALUE),
    Architecture(
        name="Qwen3ForCausalLM",
        model_type="qwen3",
        head_norms=("q_norm", "k_norm"),
        biased_if={"attention_bias": _ATTENTION},
    ),
)
