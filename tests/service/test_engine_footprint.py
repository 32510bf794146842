"""Predicted memory of the engine, by hand."""

import pytest

from service.config import EngineConfig
from service.engine_footprint import (
    SAMPLER_BYTES_PER_LOGIT,
    EngineFootprint,
    attention_splits,
    piecewise_graph_sizes,
    whole_graph_sizes,
)
from service.model_shape import find_shape
from trainer.config import TuningConfig
from trainer.footprint import MemoryLine

SHAPE = find_shape("qwen2.5-1.5b")


ALL_LAYERS = TuningConfig().adapter.target_modules


def engine(
    shape_name: str = "qwen2.5-1.5b",
    *,
    on_gpu: bool = True,
    slots: int = 7,
    targets: tuple[str, ...] = ALL_LAYERS,
    **config: object,
) -> EngineFootprint:
    return EngineFootprint(
        find_shape(shape_name),
        EngineConfig.model_validate(config),
        num_adapters=slots,
        adapter_rank=16,
        target_modules=targets,
        on_gpu=on_gpu,
    )


def line(footprint: EngineFootprint, name: str) -> MemoryLine:
    return {item.name: item for item in footprint.lines()}[name]


def test_weights_are_one_copy_in_the_models_precision() -> None:
    """1,543,714,304 tied parameters of 2 B; the vocabulary, 151936 = 64 x 2374, needs no padding."""
    assert engine().weights().size_bytes == 3_087_428_608
    assert engine(dtype="float32").weights().size_bytes == 2 * 3_087_428_608


def test_the_vocabulary_is_padded_to_a_multiple_of_64() -> None:
    """1000 tokens become 1024 rows of 128, in the embedding and in an untied head."""
    from transformers import AutoConfig

    from service.model_shape import shape_of

    config = AutoConfig.for_model(
        "llama", hidden_size=128, num_hidden_layers=1, num_attention_heads=4, vocab_size=1000, tie_word_embeddings=False
    )
    shape = shape_of(config)
    footprint = EngineFootprint(shape, EngineConfig(), num_adapters=0, adapter_rank=8, target_modules=(), on_gpu=True)
    assert footprint.weights().size_bytes == 2 * (shape.num_parameters + 2 * 24 * 128)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qwen2.5-1.5b", 28 * 2 * 2 * 128 * 2),  # 28,672
        ("qwen2.5-7b", 28 * 2 * 4 * 128 * 2),
        ("llama-13b", 40 * 2 * 40 * 128 * 2),
        ("gemma-3-270m", 18 * 2 * 1 * 256 * 2),  # sliding windows count in full
    ],
)
def test_a_token_in_the_cache(name: str, expected: int) -> None:
    """Keys and values of every layer, for the heads that have their own."""
    assert engine(name).kv_bytes_per_token == expected


def test_a_sequence_takes_whole_blocks_and_one_block_stays_empty() -> None:
    """Three sequences of 1000 tokens: 3 x 63 blocks of 16 tokens, and one more."""
    footprint = engine(max_model_len=1000)
    size = footprint.kv_cache_bytes(3)
    assert size == (3 * 63 + 1) * 16 * 28_672
    assert footprint.kv_cache_tokens(size + 5) == 190 * 16


def test_adapter_slots_are_made_for_the_layers_that_adapters_may_change() -> None:
    """Seven slots of 18,464,768 weights of 2 B for all seven linear layers."""
    assert line(engine(), "adapter_slots").size_bytes == 7 * 18_464_768 * 2


def test_layers_that_are_one_in_the_engine_have_slots_together() -> None:
    """q_proj alone takes k and v along: 28 layers x 16 x ((1536 + 1536) + 2 (1536 + 256)) weights, seven times."""
    each = 28 * 16 * ((1536 + 1536) + 2 * (1536 + 256))
    assert line(engine(targets=("q_proj",)), "adapter_slots").size_bytes == 7 * each * 2


def test_the_largest_engine_step_bounds_activations() -> None:
    """2048 tokens unless configured, at most every sequence at full length; on a CPU a whole prompt fits."""
    assert line(engine(), "engine_activations").size_bytes == 2048 * (3 * 1536 + 3 * 8960) * 2
    assert engine(max_num_batched_tokens=512).batched_tokens == 512
    assert engine(max_num_seqs=3, max_model_len=100).batched_tokens == 300
    assert engine(max_num_batched_tokens=512, max_model_len=4096, on_gpu=False).batched_tokens == 4096
    assert engine(max_num_batched_tokens=512, max_model_len=4096).batched_tokens == 512


def test_the_sampler_sees_a_row_of_logits_per_sequence() -> None:
    """128 sequences x 151936 logits: 2 B from the model, and the sampler's own."""
    assert line(engine(max_num_seqs=128), "sampler").size_bytes == 128 * 151936 * (2 + SAMPLER_BYTES_PER_LOGIT)


def test_piecewise_graphs_are_captured_for_vllms_default_sizes() -> None:
    """Up to twice the sequences: 1, 2, 4, steps of 8, above 256 of 16; never above 512 or the step's tokens."""
    sizes = piecewise_graph_sizes
    assert sizes(8, 2048) == (1, 2, 4, 8, 16)
    assert sizes(3, 2048) == (1, 2, 3, 4)
    assert len(sizes(128, 2048)) == 3 + 31 + 1  # 8 .. 248, and 256
    assert sizes(1024, 2048)[-1] == 512
    assert sizes(64, 20) == (1, 2, 4, 8, 16, 20)


def test_there_is_a_whole_graph_for_every_step() -> None:
    """Four sizes to an octave, 16 apart below 256 and 8 below 64, and the largest step."""
    sizes = whole_graph_sizes(700)
    assert sizes[:12] == (1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64, 80)
    assert sizes[-8:] == (240, 256, 320, 384, 448, 512, 640, 700)
    assert whole_graph_sizes(20) == (1, 2, 4, 8, 16, 20)


def test_graphs_of_one_set_compute_in_the_same_memory() -> None:
    """Whole: 35 sizes up to 2048 tokens, without adapters and with, 28 layers of 128 KiB. Once: activations and 8 parts
    of attention (of 1024 tokens each has 128) for 12 heads of 128."""
    arena = 2048 * ((3 * 1536 + 3 * 8960) * 2 + 8 * 12 * 129 * 4)
    assert line(engine(), "engine_graphs").size_bytes == 35 * 2 * 28 * 2**17 + arena


@pytest.mark.parametrize(
    ("max_model_len", "splits"), [(16, 1), (128, 1), (129, 2), (1024, 8), (4096, 32), (32_768, 32)]
)
def test_attention_is_not_split_further_than_there_are_blocks(max_model_len: int, splits: int) -> None:
    """A graph has room for all parts, and a short context has few."""
    assert attention_splits(EngineConfig(max_model_len=max_model_len)) == splits


def test_an_eager_engine_and_a_cpu_have_no_graphs() -> None:
    """The line is left out."""
    names = {item.name for item in engine().lines()}
    assert "engine_graphs" in names
    assert names - {"engine_graphs"} == {item.name for item in engine(enforce_eager=True).lines()}
    assert names - {"engine_graphs"} == {item.name for item in engine(on_gpu=False).lines()}
