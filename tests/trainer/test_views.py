"""The training model on the engine's own tensors."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from agent.errors import TrainerFailed
from tests.tiny_decoders import CONFIGS, VOCAB_SIZE, tiny_decoder
from trainer.architectures import Home, adapter_slot, architecture_of
from trainer.views import build_training_model, engine_tensors, shared_with

PADDED_VOCAB = 64
IDS = torch.tensor([[1, 5, 9, 40, 3, 17, 17, 30, 2, 8]])
MODELS: dict[str, dict[str, Any]] = {
    **{name: {"architecture": name} for name in CONFIGS},
    "Llama with biases": {"architecture": "LlamaForCausalLM", "attention_bias": True, "mlp_bias": True},
    "Qwen 3 with biases": {"architecture": "Qwen3ForCausalLM", "attention_bias": True},
    "Gemma 3 with biases": {"architecture": "Gemma3ForCausalLM", "attention_bias": True},
    "Mistral with 8 features a head": {"architecture": "MistralForCausalLM", "head_dim": 8},
    "Llama with rotary scaling": {
        "architecture": "LlamaForCausalLM",
        "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
    },
}


def _engine_parameters(model: nn.Module, *, lora: bool = True) -> dict[str, Tensor]:
    """The model's weights as vLLM lays them out: fused by rows, vocabulary padded, LoRA layers under ``base_layer``."""
    own = {name: parameter.detach() for name, parameter in model.named_parameters()}
    layer = ".base_layer" if lora else ""
    engine: dict[str, Tensor] = {}
    for name, value in own.items():
        path, _, leaf = name.rpartition(".")
        parent, _, module = path.rpartition(".")
        if module == "q_proj":
            rows = [own[f"{parent}.{part}_proj.{leaf}"] for part in "qkv"]
            engine[f"{parent}.qkv_proj{layer}.{leaf}"] = torch.cat(rows)
        elif module == "gate_proj":
            engine[f"{parent}.gate_up_proj{layer}.{leaf}"] = torch.cat([value, own[f"{parent}.up_proj.{leaf}"]])
        elif module in ("embed_tokens", "lm_head"):
            padding = torch.full((PADDED_VOCAB - VOCAB_SIZE, value.shape[1]), float("nan"))
            engine[name] = torch.cat([value, padding])
        elif module in ("o_proj", "down_proj"):
            engine[f"{path}{layer}.{leaf}"] = value.clone()
        elif module not in ("k_proj", "v_proj", "up_proj"):
            engine[name] = value.clone()
    return engine


def _llama(**config: Any) -> PreTrainedModel:
    return tiny_decoder("LlamaForCausalLM", **config)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("lora", [False, True], ids=["plain", "lora"])
@pytest.mark.parametrize("name", MODELS)
def test_the_training_model_is_the_engine_s(name: str, lora: bool, tied: bool) -> None:
    """Its logits are those of the model that the engine loaded, and padding rows of the vocabulary take no part."""
    original = tiny_decoder(**MODELS[name], tie_word_embeddings=tied)
    model = build_training_model(original.config, _engine_parameters(original, lora=lora))
    with torch.no_grad():
        assert torch.equal(model(input_ids=IDS).logits, original(input_ids=IDS).logits)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_buffers_hold_the_original_s_values(name: str) -> None:
    """Rotary frequencies and Gemma's embedding scale are computed, not left uninitialised on the meta device."""
    original = tiny_decoder(**MODELS[name])
    buffers = dict(build_training_model(original.config, _engine_parameters(original)).named_buffers())
    expected = dict(original.named_buffers())
    assert {key: value.device.type for key, value in buffers.items()} == dict.fromkeys(expected, "cpu")
    for key, value in expected.items():
        torch.testing.assert_close(buffers[key], value, rtol=0, atol=0)


def test_the_engine_s_dtype_decides_not_the_checkpoint_s() -> None:
    """Gemma scales embeddings by sqrt(32) = 5.65685: in bf16 that would be 5.65625, and the logits others."""
    original = tiny_decoder("Gemma3ForCausalLM")
    config = copy.deepcopy(original.config)
    config.dtype = torch.bfloat16
    model = build_training_model(config, _engine_parameters(original))
    assert model.get_buffer("model.embed_tokens.embed_scale").item() == pytest.approx(math.sqrt(32), abs=1e-6)
    assert model.dtype == torch.float32
    assert config.dtype == torch.bfloat16  # the engine's own configuration is left as it was


def test_gemma_has_one_rotary_embedding_per_kind_of_layer() -> None:
    """Sliding layers turn at base 10,000, full ones at 1,000,000: feature pair 1 of 8 at base ** (-2 / 16)."""
    original = tiny_decoder("Gemma3ForCausalLM")
    buffers = dict(build_training_model(original.config, _engine_parameters(original)).named_buffers())
    assert buffers["model.rotary_emb.sliding_attention_inv_freq"][1].item() == pytest.approx(0.3162278)
    assert buffers["model.rotary_emb.full_attention_inv_freq"][1].item() == pytest.approx(0.1778279)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_is_a_view(name: str, tied: bool) -> None:
    """No parameter owns memory, and together they cover the engine's tensors but for the padding."""
    original = tiny_decoder(**MODELS[name], tie_word_embeddings=tied)
    engine = _engine_parameters(original)
    model = build_training_model(original.config, engine)
    named = dict(model.named_parameters())
    assert shared_with(named.values(), engine.values()) == len(named)
    padding = (PADDED_VOCAB - VOCAB_SIZE) * 32 * (1 if tied else 2)
    assert sum(map(torch.numel, named.values())) == sum(map(torch.numel, engine.values())) - padding
    head = engine["model.embed_tokens.weight" if tied else "lm_head.weight"]
    assert model.get_output_embeddings().weight.data_ptr() == head.data_ptr()


def test_views_begin_at_their_rows() -> None:
    """4 query and 2 key-value heads of 16: q has rows 0 to 64, k 64 to 96, v 96 to 128, of 32 floats; biases alike."""
    original = _llama(attention_bias=True)
    engine = _engine_parameters(original)
    named = dict(build_training_model(original.config, engine).named_parameters())
    for kind, row_bytes in (("weight", 32 * 4), ("bias", 4)):
        start = engine[f"model.layers.1.self_attn.qkv_proj.base_layer.{kind}"].data_ptr()
        views = [named[f"model.layers.1.self_attn.{part}_proj.{kind}"] for part in "qkv"]
        assert [view.data_ptr() - start for view in views] == [0, 64 * row_bytes, 96 * row_bytes]


@pytest.mark.parametrize("name", MODELS)
def test_a_change_in_the_engine_is_a_change_in_training(name: str) -> None:
    """Written in place on one side, read on the other, by every parameter."""
    original = tiny_decoder(**MODELS[name])
    engine = _engine_parameters(original)
    model = build_training_model(original.config, engine)
    for tensor in engine.values():
        tensor.fill_(3.0)
    assert all(bool((parameter == 3.0).all()) for parameter in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_the_map_names_every_parameter_once(name: str) -> None:
    """It lists the Hugging Face model's parameters, no more and no fewer, each with the rows of its shape."""
    original = tiny_decoder(**MODELS[name])
    homes = architecture_of(original.config).homes(original.config)
    rows = {key: home.stop - home.start for key, home in homes.items()}
    assert rows == {key: len(parameter) for key, parameter in original.named_parameters()}


def test_homes_of_qwen2() -> None:
    """Heads of 32 / 4 = 8: 32 rows of q, 16 of k, 16 of v, their biases beside them, none elsewhere."""
    config = tiny_decoder("Qwen2ForCausalLM", num_hidden_layers=1, tie_word_embeddings=True).config
    attention, mlp = "model.layers.0.self_attn", "model.layers.0.mlp"
    assert architecture_of(config).homes(config) == {
        "model.embed_tokens.weight": Home("model.embed_tokens.weight", 0, 48, padded=True),
        "model.norm.weight": Home("model.norm.weight", 0, 32),
        f"{attention}.q_proj.weight": Home(f"{attention}.qkv_proj.weight", 0, 32),
        f"{attention}.q_proj.bias": Home(f"{attention}.qkv_proj.bias", 0, 32),
        f"{attention}.k_proj.weight": Home(f"{attention}.qkv_proj.weight", 32, 48),
        f"{attention}.k_proj.bias": Home(f"{attention}.qkv_proj.bias", 32, 48),
        f"{attention}.v_proj.weight": Home(f"{attention}.qkv_proj.weight", 48, 64),
        f"{attention}.v_proj.bias": Home(f"{attention}.qkv_proj.bias", 48, 64),
        f"{attention}.o_proj.weight": Home(f"{attention}.o_proj.weight", 0, 32),
        f"{mlp}.gate_proj.weight": Home(f"{mlp}.gate_up_proj.weight", 0, 40),
        f"{mlp}.up_proj.weight": Home(f"{mlp}.gate_up_proj.weight", 40, 80),
        f"{mlp}.down_proj.weight": Home(f"{mlp}.down_proj.weight", 0, 32),
        "model.layers.0.input_layernorm.weight": Home("model.layers.0.input_layernorm.weight", 0, 32),
        "model.layers.0.post_attention_layernorm.weight": Home("model.layers.0.post_attention_layernorm.weight", 0, 32),
    }


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("name", MODELS)
def test_engine_tensors_are_what_full_fine_tuning_updates(name: str, tied: bool) -> None:
    """The engine's own names and memory, each once: as many values as the training model has, so no padding."""
    original = tiny_decoder(**MODELS[name], tie_word_embeddings=tied)
    engine = _engine_parameters(original)
    tensors = engine_tensors(original.config, engine)
    addresses = {key.replace(".base_layer", ""): value.data_ptr() for key, value in engine.items()}
    assert {key: value.data_ptr() for key, value in tensors.items()} == addresses
    assert sum(map(torch.numel, tensors.values())) == sum(map(torch.numel, original.parameters()))
    assert tensors["model.embed_tokens.weight"].shape == (VOCAB_SIZE, 32)
    assert all(tensor.is_contiguous() for tensor in tensors.values())


def test_a_parameter_that_training_would_leave_behind_is_named() -> None:
    """A Mistral has no biases at Hugging Face; the engine's model computes with one, so both functions refuse it."""
    original = tiny_decoder("MistralForCausalLM")
    engine = _engine_parameters(original) | {"model.layers.0.self_attn.qkv_proj.base_layer.bias": torch.zeros(128)}
    reason = r"MistralForCausalLM: the engine's model\.layers\.0\.self_attn\.qkv_proj\.bias has no counterpart"
    with pytest.raises(TrainerFailed, match=reason):
        engine_tensors(original.config, engine)
    with pytest.raises(TrainerFailed, match=reason):
        build_training_model(original.config, engine)


def test_an_untied_head_of_a_tied_model_is_left_behind() -> None:
    """The engine's head would answer with weights that the training model does not have."""
    original = _llama(tie_word_embeddings=True)
    engine = _engine_parameters(original) | {"lm_head.weight": torch.zeros(PADDED_VOCAB, 32)}
    with pytest.raises(TrainerFailed, match=r"the engine's lm_head\.weight has no counterpart"):
        engine_tensors(original.config, engine)


def test_integers_are_not_left_behind() -> None:
    """Tables that the engine keeps as parameters are not weights."""
    original = _llama()
    engine = _engine_parameters(original) | {"model.table": torch.zeros(3, dtype=torch.int32)}
    assert "model.table" not in engine_tensors(original.config, engine)


@pytest.mark.parametrize("function", [build_training_model, engine_tensors])
def test_parameters_without_a_home_are_named(function: Any) -> None:
    """vLLM's Qwen 3 has no bias in o_proj, Hugging Face's has one with attention_bias: refused before any training."""
    original = tiny_decoder("Qwen3ForCausalLM", attention_bias=True)
    engine = _engine_parameters(original)
    del engine["model.layers.0.self_attn.o_proj.base_layer.bias"]
    with pytest.raises(TrainerFailed, match=r"Qwen3ForCausalLM: model\.layers\.0\.self_attn\.o_proj\.bias has no home"):
        function(original.config, engine)


def test_parameters_of_another_shape_are_named() -> None:
    """Both shapes are in the message."""
    engine = _engine_parameters(_llama()) | {"model.norm.weight": torch.zeros(31)}
    with pytest.raises(TrainerFailed, match=r"model\.norm\.weight must be \[32\], the engine holds \[31\]$"):
        build_training_model(_llama().config, engine)


def test_parameters_of_too_few_rows_are_named() -> None:
    """A CPU engine that packed its weights away holds none."""
    engine = _engine_parameters(_llama()) | {"model.layers.1.self_attn.o_proj.base_layer.weight": torch.zeros(0)}
    with pytest.raises(
        TrainerFailed, match=r"layers\.1\.self_attn\.o_proj\.weight must have 32 rows, the engine holds 0"
    ):
        engine_tensors(_llama().config, engine)


@pytest.mark.parametrize("function", [build_training_model, engine_tensors])
def test_rows_beyond_the_map_are_refused(function: Any) -> None:
    """Only a vocabulary is padded: a longer qkv_proj has its k and v elsewhere than the map says."""
    engine = _engine_parameters(_llama())
    engine["model.layers.0.self_attn.qkv_proj.base_layer.weight"] = torch.zeros(192, 32)
    with pytest.raises(TrainerFailed, match=r"layers\.0\.self_attn\.qkv_proj\.weight must have 128 rows, it holds 192"):
        function(_llama().config, engine)


def test_parameters_of_another_dtype_are_named() -> None:
    """A weight kept in another precision than the model computes in cannot be trained in place."""
    engine = _engine_parameters(_llama()) | {"model.norm.weight": torch.zeros(32, dtype=torch.float16)}
    with pytest.raises(TrainerFailed, match=r"norm\.weight must be torch\.float32, the engine holds torch\.float16"):
        build_training_model(_llama().config, engine)


def test_a_quantised_engine_is_refused() -> None:
    """Its tensors are no weights to train, and its scales have no counterpart; serving goes on."""
    original = _llama()
    engine = {name: value.to(torch.float8_e4m3fn) for name, value in _engine_parameters(original).items()}
    engine["model.layers.0.mlp.down_proj.base_layer.weight_scale"] = torch.ones(1)
    with pytest.raises(TrainerFailed, match=r"must be torch\.float32, the engine holds torch\.float8_e4m3fn"):
        build_training_model(original.config, engine)
    with pytest.raises(TrainerFailed, match=r"the engine's model\.layers\.0\.mlp\.down_proj\.weight_scale has no"):
        engine_tensors(original.config, engine)


def test_many_misfits_are_summed_up() -> None:
    """The first five are named; a Llama of two layers has 21 parameters, of which one fits here."""
    engine = {"model.norm.weight": torch.zeros(32)}
    with pytest.raises(TrainerFailed, match=r"model\.embed_tokens\.weight has no home.*; and 15 more$"):
        build_training_model(_llama().config, engine)


def test_an_unknown_architecture_is_refused() -> None:
    """The message says which it is and which there are."""
    config = _llama().config
    config.architectures = ["MixtralForCausalLM"]
    known = "Gemma3ForCausalLM, LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM"
    with pytest.raises(TrainerFailed, match=f"cannot train a MixtralForCausalLM: .* must be one of {known}$"):
        build_training_model(config, {})


def test_a_configuration_that_contradicts_itself_is_refused() -> None:
    """vLLM goes by the architecture, Hugging Face by the model type: they would build different models."""
    config = _llama().config
    config.architectures = ["MistralForCausalLM"]
    with pytest.raises(TrainerFailed, match="a MistralForCausalLM: its model_type must be mistral, got llama"):
        engine_tensors(config, {})


@pytest.mark.parametrize("name", CONFIGS)
def test_the_model_type_stands_for_a_missing_architecture(name: str) -> None:
    """The text part of a larger model's configuration often names none."""
    config = tiny_decoder(name).config
    config.architectures = None
    assert architecture_of(config).name == name


@pytest.mark.parametrize(
    ("module", "slot"),
    [
        ("self_attn.q_proj", ("self_attn.qkv_proj", 0)),
        ("self_attn.k_proj", ("self_attn.qkv_proj", 1)),
        ("self_attn.v_proj", ("self_attn.qkv_proj", 2)),
        ("self_attn.o_proj", ("self_attn.o_proj", 0)),
        ("mlp.gate_proj", ("mlp.gate_up_proj", 0)),
        ("mlp.up_proj", ("mlp.gate_up_proj", 1)),
        ("mlp.down_proj", ("mlp.down_proj", 0)),
    ],
)
def test_an_adapter_s_slot(module: str, slot: tuple[str, int]) -> None:
    """Fused layers hold one slice per part, in the order of their rows."""
    assert adapter_slot(f"model.layers.3.{module}") == (f"model.layers.3.{slot[0]}", slot[1])


@pytest.mark.parametrize("module", ["lm_head", "model.embed_tokens", "model.layers.0.self_attn.qkv_proj"])
def test_other_modules_have_no_adapter_slot(module: str) -> None:
    """Adapters are on the linear layers of decoder layers, by Hugging Face's names."""
    with pytest.raises(TrainerFailed, match=f"got {module}"):
        adapter_slot(module)


def test_a_copy_is_not_counted_as_shared() -> None:
    """Equal values elsewhere in memory do not count, nor does a tensor that reaches beyond its owner."""
    owner = torch.zeros(4)
    assert shared_with([owner[1:3], owner.clone()], [owner]) == 1
    assert shared_with([owner], [owner[:2]]) == 0
