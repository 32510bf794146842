"""Sizes of models, read from configurations alone."""

from pathlib import Path

import pytest
from transformers import AutoConfig

from agent.errors import InvalidConfig
from service.model_shape import find_shape, read_shape
from service.models import CATALOGUE
from service.named_shapes import NAMED_SHAPES
from tests.tiny_model import save_tiny_llama


@pytest.mark.parametrize(
    ("name", "num_parameters"),
    [
        ("qwen2.5-1.5b", 1_543_714_304),
        ("qwen2.5-7b", 7_615_616_512),
        ("llama-13b", 13_015_864_320),
        ("qwen2.5-32b", 32_763_876_352),
        ("qwen2.5-72b", 72_706_203_648),
    ],
)
def test_built_in_shapes_have_the_parameters_of_the_published_models(name: str, num_parameters: int) -> None:
    """Exactly: biases, norms and tied embeddings included."""
    assert find_shape(name).num_parameters == num_parameters


def test_every_embedded_model_has_a_shape() -> None:
    """`coloq plan` with the default configuration fetches nothing."""
    assert {model.name for model in CATALOGUE} <= NAMED_SHAPES.keys()


def test_linear_layers_are_counted_over_all_layers() -> None:
    """28 layers of seven, none of them the head; heads of 128 features, two of them for keys and values."""
    shape = find_shape("qwen2.5-1.5b")
    sizes = {linear.name: (linear.in_features, linear.out_features) for linear in shape.linears}
    assert sizes == {
        "self_attn.q_proj": (1536, 1536),
        "self_attn.k_proj": (1536, 256),
        "self_attn.v_proj": (1536, 256),
        "self_attn.o_proj": (1536, 1536),
        "mlp.gate_proj": (1536, 8960),
        "mlp.up_proj": (1536, 8960),
        "mlp.down_proj": (8960, 1536),
    }
    assert {linear.count for linear in shape.linears} == {28}
    assert (shape.num_kv_heads, shape.head_dim, shape.tied_head) == (2, 128, True)
    assert (shape.architecture, shape.norm_rows, shape.norm_features) == ("Qwen2ForCausalLM", 2, 2 * 1536)


def test_norms_of_heads_work_on_every_head() -> None:
    """Gemma 3 270M: four norms of 640 features, one of 256 for each of 4 query heads, one for the key head."""
    shape = find_shape("gemma-3-270m")
    assert (shape.norm_rows, shape.norm_features) == (4 + 4 + 1, 4 * 640 + 4 * 256 + 256)


def test_a_folder_is_read_by_its_configuration(tmp_path: Path) -> None:
    """No weight is needed: the file config.json is enough, and gives the parameters of the saved model."""
    folder = save_tiny_llama(tmp_path / "tiny", hidden_size=64, num_layers=2)
    vocabulary = AutoConfig.from_pretrained(folder).vocab_size
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    # 64 wide, inner 192, 2 heads and 1 key-value head of 32: a layer has q, o 64x64, k, v 64x32, 3 of 64x192, 2 norms
    layer = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 192 + 2 * 64
    assert read_shape(str(folder)).num_parameters == 2 * vocabulary * 64 + 2 * layer + 64


def test_an_unreadable_model_is_refused_by_key(tmp_path: Path) -> None:
    """The message says what may be named."""
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InvalidConfig, match=r"must be a folder with config\.json") as raised:
        read_shape(str(tmp_path))
    assert raised.value.field == "engine.model"


def test_a_model_without_a_language_head_is_refused(tmp_path: Path) -> None:
    """An image classifier cannot be served."""
    AutoConfig.for_model("vit").save_pretrained(tmp_path)
    with pytest.raises(InvalidConfig, match="must be a causal language model, got a vit"):
        read_shape(str(tmp_path))


def test_a_model_without_linear_layers_has_a_shape(tmp_path: Path) -> None:
    """GPT-2 serves, although it cannot be tuned: its layers are no Linear, their inner size 4 times the outer."""
    AutoConfig.for_model("gpt2", n_embd=64, n_layer=2, n_head=2).save_pretrained(tmp_path)
    shape = read_shape(str(tmp_path))
    assert (shape.architecture, shape.linears, shape.intermediate_size) == ("GPT2LMHeadModel", (), 256)


def test_a_model_without_attention_is_refused(tmp_path: Path) -> None:
    """There is no KV cache to plan."""
    AutoConfig.for_model("mamba", hidden_size=64, num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(InvalidConfig, match="must be a model with attention heads, got a mamba"):
        read_shape(str(tmp_path))


def test_the_name_of_a_shape_is_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """`coloq plan` takes it and `coloq serve` does not: the message says why, since it lists the name too."""

    def missing(name: str) -> None:
        raise OSError(f"{name} is not a local folder\nand is not a valid model identifier")

    monkeypatch.setattr(AutoConfig, "from_pretrained", missing)
    with pytest.raises(
        InvalidConfig, match=r"got 'qwen2\.5-7b': that names sizes for `coloq plan` and benches, and has"
    ):
        read_shape("qwen2.5-7b")
    with pytest.raises(InvalidConfig, match=r"got 'org/none': org/none is not a local folder$"):
        read_shape("org/none")
