"""Models of a shape: files, weights, and a tokenizer that knows every token."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from agent.errors import InvalidInput
from service.bench.shape import SHAPES, Shape, find_shape, write_model
from service.bench.tokenizer import filled_tokenizer
from service.named_shapes import NAMED_SHAPES

TINY = find_shape("tiny")
VOCAB_SIZE = 1024


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shape") / "tiny"
    write_model(TINY, path, shard_bytes=2**20)
    return path


@pytest.fixture(scope="module")
def tensors(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def test_transformers_loads_every_weight(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Names and sizes are the architecture's; about a million parameters."""
    model = LlamaForCausalLM.from_pretrained(folder)
    named = dict(model.named_parameters())
    assert set(named) == set(tensors)
    assert all(torch.equal(named[name], tensor) for name, tensor in tensors.items())
    assert 1.0e6 < sum(tensor.numel() for tensor in tensors.values()) < 1.1e6


def test_weights_are_spread_over_shards_that_the_index_names(folder: Path) -> None:
    """Four megabytes in shards of at most one: five or more, and each tensor is where the index says."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    names = {path.name for path in folder.glob("*.safetensors")}
    assert set(index["weight_map"].values()) == names
    assert len(names) >= 5
    assert all(name in load_file(folder / place) for name, place in index["weight_map"].items())
    assert index["metadata"]["total_size"] == 4 * sum(
        tensor.numel() for path in folder.glob("*.safetensors") for tensor in load_file(path).values()
    )


def test_weights_are_normal_and_norms_one(tensors: dict[str, Tensor]) -> None:
    """The embedding's deviation is 0.02 within 2 %; norms are all 1."""
    assert tensors["model.embed_tokens.weight"].std().item() == pytest.approx(0.02, rel=0.02)
    assert torch.equal(tensors["model.norm.weight"], torch.ones(128))


def test_biases_are_zero_and_a_tied_head_is_not_written(tmp_path: Path) -> None:
    """Qwen's query, key and value layers have biases; its small models have one matrix for both ends."""
    small = {"hidden_size": 48, "num_hidden_layers": 1, "intermediate_size": 32, "vocab_size": 1024}
    write_model(Shape("small", {**SHAPES["qwen2.5-1.5b"].sizes, **small}, dtype="float32"), tmp_path / "m")
    tensors = load_file(tmp_path / "m" / "model-00001-of-00001.safetensors")
    assert torch.equal(tensors["model.layers.0.self_attn.q_proj.bias"], torch.zeros(48))
    assert "lm_head.weight" not in tensors


def test_every_id_decodes_and_none_ends_a_reply(folder: Path) -> None:
    """The tokenizer fills the model's vocabulary; its end-of-sequence token is the first id beyond it."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert all(tokenizer.decode([index]) for index in range(3, VOCAB_SIZE))
    assert tokenizer.eos_token_id == VOCAB_SIZE
    assert json.loads((folder / "config.json").read_text())["eos_token_id"] is None


def test_a_prompts_special_tokens_are_the_models(folder: Path) -> None:
    """The chat template uses ids that the model has rows for."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids[0] == 1
    assert max(ids) < VOCAB_SIZE


def test_a_vocabulary_of_any_size_is_filled() -> None:
    """152,064 ids, all different."""
    assert len(filled_tokenizer(152_064)) == 152_065
    with pytest.raises(ValueError, match="vocab_size must be at least"):
        filled_tokenizer(100)


def test_every_shape_that_can_be_planned_can_be_made() -> None:
    """Under the same name, with the same sizes, in bf16."""
    assert SHAPES.keys() == {"tiny", *NAMED_SHAPES}
    assert all(SHAPES[name] == Shape(name, sizes, dtype="bfloat16") for name, sizes in NAMED_SHAPES.items())


@pytest.mark.parametrize("name", list(NAMED_SHAPES))
def test_every_architecture_can_be_made(name: str, tmp_path: Path) -> None:
    """With one layer and little of everything, it loads; no token ends a reply."""
    small = {"hidden_size": 64, "num_hidden_layers": 1, "intermediate_size": 32, "vocab_size": 1024}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    write_model(Shape(name, {**SHAPES[name].sizes, **small, **heads}), tmp_path / "m")
    config = AutoModelForCausalLM.from_pretrained(tmp_path / "m").config
    assert (config.model_type, config.hidden_size) == (SHAPES[name].sizes["model_type"], 64)
    assert (config.max_position_embeddings, config.eos_token_id) == (4096, None)


def test_an_unknown_shape_is_refused_with_those_that_there_are() -> None:
    """The message names every shape."""
    with pytest.raises(InvalidInput, match=r"must be one of tiny, qwen2\.5-1\.5b"):
        find_shape("huge")
