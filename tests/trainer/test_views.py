"""The training model on the engine's own tensors."""

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from agent.errors import TrainerFailed
from tests.trainer.samples import VOCAB_SIZE, tiny_llama
from trainer.views import build_training_model, shared_with

PADDED_VOCAB = 64


def _engine_parameters(model: LlamaForCausalLM, *, lora: bool = True) -> dict[str, Tensor]:
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


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("lora", [False, True])
def test_the_training_model_is_the_engine_s(tied: bool, lora: bool) -> None:
    """Its logits are those of the model that the engine loaded, and padding rows of the vocabulary take no part."""
    original = tiny_llama(tied=tied)
    model = build_training_model(original.config, _engine_parameters(original, lora=lora))
    ids = torch.tensor([[1, 5, 9, 40, 3]])
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, original(input_ids=ids).logits)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("tied", [False, True])
def test_every_parameter_is_a_view(tied: bool) -> None:
    """No parameter owns memory: each starts at its rows of the engine's tensor."""
    engine = _engine_parameters(tiny_llama(tied=tied))
    model = build_training_model(tiny_llama(tied=tied).config, engine)
    named = dict(model.named_parameters())
    assert shared_with(named.values(), engine.values()) == len(named)
    # 4 query heads and 2 key-value heads of size 8: k_proj begins at row 32, v_proj at row 48 of rows of 32 floats.
    qkv = engine["model.layers.1.self_attn.qkv_proj.base_layer.weight"]
    addresses = [named[f"model.layers.1.self_attn.{part}_proj.weight"].data_ptr() - qkv.data_ptr() for part in "qkv"]
    assert addresses == [0, 32 * 32 * 4, 48 * 32 * 4]
    assert (
        model.get_output_embeddings().weight.data_ptr()
        == engine["model.embed_tokens.weight" if tied else "lm_head.weight"].data_ptr()
    )


def test_a_change_in_the_engine_is_a_change_in_training() -> None:
    """Written in place on one side, read on the other."""
    engine = _engine_parameters(tiny_llama())
    model = build_training_model(tiny_llama().config, engine)
    engine["model.norm.weight"].fill_(3.0)
    assert model.get_parameter("model.norm.weight").unique().tolist() == [3.0]


def test_a_copy_is_not_counted_as_shared() -> None:
    """Equal values elsewhere in memory do not count, nor does a tensor that reaches beyond its owner."""
    owner = torch.zeros(4)
    assert shared_with([owner[1:3], owner.clone()], [owner]) == 1
    assert shared_with([owner], [owner[:2]]) == 0


def test_parameters_without_a_home_are_named() -> None:
    """An architecture that the engine lays out otherwise is refused before anything is trained."""
    engine = _engine_parameters(tiny_llama())
    del engine["model.layers.0.self_attn.o_proj.base_layer.weight"]
    with pytest.raises(TrainerFailed, match=r"LlamaForCausalLM.*layers\.0\.self_attn\.o_proj\.weight has no home"):
        build_training_model(_config_with_architecture(), engine)


def test_parameters_of_another_shape_are_named() -> None:
    """Both shapes are in the message."""
    engine = _engine_parameters(tiny_llama())
    engine["model.norm.weight"] = torch.zeros(31)
    with pytest.raises(TrainerFailed, match=r"model\.norm\.weight must be \[32\], the engine holds \[31\]"):
        build_training_model(tiny_llama().config, engine)


def test_many_misfits_are_summed_up() -> None:
    """The first five are named; a Llama of two layers has 21 parameters, of which one fits here."""
    engine = {"model.norm.weight": torch.zeros(32)}
    with pytest.raises(TrainerFailed, match="and 15 more"):
        build_training_model(tiny_llama().config, engine)


def _config_with_architecture() -> LlamaConfig:
    config: LlamaConfig = tiny_llama().config
    config.architectures = ["LlamaForCausalLM"]
    return config
