"""A random model of a few thousand parameters of each architecture that can be trained on the engine's weights."""

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

VOCAB_SIZE = 48
HIDDEN_SIZE = 32
CONFIGS: dict[str, type[PretrainedConfig]] = {
    "Gemma3ForCausalLM": Gemma3TextConfig,
    "LlamaForCausalLM": LlamaConfig,
    "MistralForCausalLM": MistralConfig,
    "Qwen2ForCausalLM": Qwen2Config,
    "Qwen3ForCausalLM": Qwen3Config,
}
_SPECIFIC: dict[str, dict[str, Any]] = {
    # A window shorter than the tests' texts, and one layer without: the two layers use different rotary embeddings.
    "Gemma3ForCausalLM": {
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 4,
        "query_pre_attn_scalar": 16,
    },
    "MistralForCausalLM": {"sliding_window": None},
}


def tiny_decoder(architecture: str, *, seed: int = 0, **config: Any) -> PreTrainedModel:
    """Two layers, 4 query and 2 key-value heads, 48 tokens, fp32, in evaluation mode; ``config`` overrides.

    Heads have 16 features, not the 8 of hidden_size / heads, but in Qwen2, whose configuration cannot say so. No
    parameter has a value that an initialisation gives it: norms are not ones, biases not zeros.
    """
    settings: dict[str, Any] = {
        "architectures": [architecture],
        "vocab_size": VOCAB_SIZE,
        "hidden_size": HIDDEN_SIZE,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "tie_word_embeddings": False,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if architecture != "Qwen2ForCausalLM":
        settings["head_dim"] = 16
    model: PreTrainedModel = AutoModelForCausalLM.from_config(
        CONFIGS[architecture](**settings | _SPECIFIC.get(architecture, {}) | config),
        attn_implementation="sdpa",
        dtype=torch.float32,
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.1, 0.2, generator=generator)
    model.eval()
    return model
