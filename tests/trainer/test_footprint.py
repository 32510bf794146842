"""Predicted memory of training: by hand for the 1.5B shape, and against what autograd really saves for small models."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from service.model_shape import find_shape, shape_of
from trainer import attention
from trainer.activations import BACKWARD_HIDDEN_TENSORS, BACKWARD_INNER_TENSORS, HEAD_HIDDEN_TENSORS
from trainer.config import AdapterConfig, FullConfig, TuningConfig
from trainer.footprint import MemoryLine, TrainingFootprint, num_adapter_slots
from trainer.lora import Adapter
from trainer.objective import last_hidden
from trainer.ports import suiting_microbatch_tokens
from trainer.prefix_tree import PrefixTree, blank_tree

SHAPE = find_shape("qwen2.5-1.5b")
ADAPTER = TuningConfig(microbatch_tokens=4096, keep_adapters=4, share_prefixes=False)
FULL = TuningConfig(method="full", microbatch_tokens=4096, share_prefixes=False)
SHARED = TuningConfig(microbatch_tokens=4096)
NUM_ADAPTER = 18_464_768
"""28 layers x rank 16 x (in + out): q and o 1536+1536, k and v 1536+256, gate and up 1536+8960, down 8960+1536."""
NUM_PARAMETERS = 1_543_714_304


def footprint(tuning: TuningConfig, *, longest: int = 1024, item: int = 2, on_gpu: bool = True) -> TrainingFootprint:
    return TrainingFootprint(SHAPE, tuning, longest_tokens=longest, item_bytes=item, on_gpu=on_gpu)


def lines(tuning: TuningConfig, *, longest: int = 1024, on_gpu: bool = True) -> dict[str, MemoryLine]:
    return {line.name: line for line in footprint(tuning, longest=longest, on_gpu=on_gpu).lines()}


def test_an_adapter_has_the_weights_of_every_targeted_layer() -> None:
    """Rank 16 on all seven layers of the 1.5B shape is 18.5 million weights; on q_proj alone 28 x 16 x 3072."""
    assert footprint(ADAPTER).num_trained == NUM_ADAPTER
    queries = TuningConfig(adapter=AdapterConfig(rank=16, target_modules=("q_proj",)))
    assert footprint(queries).num_trained == 28 * 16 * (1536 + 1536)


def test_an_adapters_state_is_counted_per_weight() -> None:
    """Masters 4 B and moments 8 B, gradient sums 4 B, the weights themselves 2 B, and 2 B for each version kept."""
    by_name = lines(ADAPTER)
    assert by_name["masters_and_moments"].size_bytes == 12 * NUM_ADAPTER
    assert by_name["gradients"].size_bytes == 4 * NUM_ADAPTER
    assert by_name["trained_weights"].size_bytes == 2 * NUM_ADAPTER
    # keep_adapters 4, the active one, the candidate and its successor
    assert num_adapter_slots(ADAPTER) == 7
    assert by_name["kept_versions"].size_bytes == 7 * 2 * NUM_ADAPTER


def test_full_tuning_keeps_masters_moments_and_sums_of_every_parameter() -> None:
    """Of gradients in the model's precision two of the largest matrix (151936 x 1536) are alive at one time."""
    by_name = lines(FULL)
    assert by_name["masters_and_moments"].size_bytes == 12 * NUM_PARAMETERS
    assert by_name["gradients"].size_bytes == 4 * NUM_PARAMETERS
    assert by_name["largest_gradients"].size_bytes == 2 * 2 * 151936 * 1536
    assert not by_name["masters_and_moments"].on_host


def test_the_cpus_optimizer_leaves_only_gradients_on_the_gpu() -> None:
    """Masters and moments are on the host, with 4 pinned buffers of 2 Mi elements each way: 4 B there, 2 B back."""
    by_name = lines(FULL.model_copy(update={"optimizer": "cpu"}))
    assert by_name["masters_and_moments"].on_host
    assert by_name["masters_and_moments"].size_bytes == 12 * NUM_PARAMETERS + 4 * 2**21 * (4 + 2)
    assert not by_name["gradients"].on_host


@pytest.mark.parametrize(("place", "on_host"), [("host", True), ("gpu", False)])
def test_the_last_good_weights_are_where_the_configuration_says(place: str, on_host: bool) -> None:
    """A copy of 2 B a parameter."""
    line = lines(FULL.model_copy(update={"full": FullConfig.model_validate({"last_good": place})}))["kept_versions"]
    assert (line.on_host, line.size_bytes) == (on_host, 2 * NUM_PARAMETERS)


def test_saved_bytes_of_the_1_5b_shape() -> None:
    """One decoder layer, one position, adapters of rank 16; a GPU's fused kernels keep less than Hugging Face's."""
    attention = (1536 + 256 + 256 + 1536) * 2 + 12 * 4  # q, k, v, output; logsumexp of 12 heads
    inputs = (1536 + 1536 + 8960) * 2  # of q, k, v; of gate, up; of down. o's is attention's output
    both = attention + inputs + 7 * 16 * 2
    norms, mlp = 2 * (1536 * 4 + 4), 3 * 8960 * 2  # gate, its activation, up
    assert footprint(ADAPTER, on_gpu=False).activations.saved_bytes_per_position() == both + norms + mlp == 97_560
    fused_norms, fused_mlp = 2 * (1536 * 2 + 4), 2 * 8960 * 2
    assert footprint(ADAPTER).activations.saved_bytes_per_position() == both + fused_norms + fused_mlp == 73_496
    assert footprint(FULL).activations.saved_bytes_per_position() == 73_496 - 7 * 16 * 2
    assert footprint(ADAPTER).activations.saved_by_attention() == attention == 7_216
    assert footprint(ADAPTER).activations.saved_bytes_per_node() == 73_496 - 7_216 + 1536 * 2  # and o's input


def test_activations_are_those_of_the_largest_micro_batch() -> None:
    """4 sequences of 1024 positions through 28 layers; beside them one layer's backward and the head."""
    hidden = (BACKWARD_HIDDEN_TENSORS + HEAD_HIDDEN_TENSORS) * 1536
    beside = (BACKWARD_INNER_TENSORS * 8960 + hidden) * 2
    assert lines(ADAPTER)["activations"].size_bytes == int(1.15 * 4 * 1024 * (28 * 73_496 + beside))
    assert lines(ADAPTER, on_gpu=False)["activations"].size_bytes == 4 * 1024 * (28 * 97_560 + beside)


def test_a_tree_keeps_more_for_attention() -> None:
    """4096 nodes, and 12 sequences of 1024 positions, which attention sees one by one: what it saves of each, and of
    one layer gradients of queries, outputs (1536), keys and values (256), the last two once more in fp32."""
    hidden = (BACKWARD_HIDDEN_TENSORS + HEAD_HIDDEN_TENSORS) * 1536
    beside = (BACKWARD_INNER_TENSORS * 8960 + hidden) * 2
    gradients = (2 * 1536 + 2 * 256) * 2 + 2 * 256 * 4
    size = 4096 * (28 * 69_352 + beside) + 12 * 1024 * (28 * 7_216 + gradients)
    assert lines(SHARED)["activations"].size_bytes == int(1.15 * size)
    assert "4096 nodes × (28 layers × 69,352 B" in lines(SHARED)["activations"].basis


def test_a_micro_batch_holds_so_many_positions_and_never_less_than_a_sequence() -> None:
    """On a GPU the lengths of its graphs are looked at, on a CPU the longest sequence, rounded up to 1280 from 1025."""
    assert footprint(ADAPTER).largest_shape[:2] == (4, 1024)
    assert footprint(TuningConfig()).positions == 4096
    assert footprint(TuningConfig(microbatch_tokens=64)).largest_shape == (1, 1024, 128, None)
    assert footprint(TuningConfig(), on_gpu=False).largest_shape == (3, 1024, 128, 1024)
    assert footprint(TuningConfig(), longest=1025, on_gpu=False).largest_shape == (2, 1280, 128, 1280)
    assert footprint(TuningConfig(share_prefixes=False), on_gpu=False).largest_shape == (1, 1024, 128, None)


@pytest.mark.parametrize(
    ("billions", "tokens"),
    [(0.135, 4096), (1.54, 4096), (3.09, 2048), (7.62, 1024), (8.03, 1024), (14.8, 512), (32.8, 256), (72.7, 256)],
)
def test_micro_batches_of_larger_models_are_smaller(billions: float, tokens: int) -> None:
    """4,096 positions of 2.5 billion parameters, or the largest power of two with no more of both multiplied."""
    assert suiting_microbatch_tokens(int(billions * 1e9), on_gpu=True) == tokens
    assert suiting_microbatch_tokens(int(billions * 1e9), on_gpu=False) == 1024


def test_logits_exist_a_chunk_at_a_time() -> None:
    """256 rows of 151936 logits: two tensors of 2 B; on a CPU two of fp32 beside them."""
    assert lines(ADAPTER)["logits"].size_bytes == int(1.15 * 256 * 151936 * 4)
    assert lines(ADAPTER, on_gpu=False)["logits"].size_bytes == 256 * 151936 * 12


def test_a_cpu_keeps_no_graphs() -> None:
    """They are captured on a GPU: for each shape, on each of three partitions and the whole device. With replies of 128
    tokens and sequences of 1024 there are six lengths: 192, 256, 384, 512, 768, 1024. With trees there are three, and
    for each of them trees of 4096, 2048 and 1024 nodes."""
    assert lines(ADAPTER)["training_graphs"].basis.startswith("6 shapes × 4 lanes")
    assert lines(SHARED)["training_graphs"].basis.startswith("12 shapes × 4 lanes")
    assert "training_graphs" not in lines(ADAPTER, on_gpu=False)


def test_scoring_has_graphs_of_its_own() -> None:
    """A forward pass is a third of a captured step: one for the KL term, one for several decoupled updates."""
    plain = lines(ADAPTER)["training_graphs"].size_bytes
    scored = ADAPTER.model_copy(update={"kl_weight": 0.1, "updates_per_batch": 2})
    assert lines(scored)["training_graphs"].size_bytes == pytest.approx(plain * 5 / 3, rel=1e-6)
    coupled = ADAPTER.model_copy(update={"updates_per_batch": 2, "objective": "coupled"})
    assert lines(coupled)["training_graphs"].size_bytes == plain


def test_the_optimizer_is_placed_last() -> None:
    """What a run cannot do without comes first."""
    last = ["activations", "logits", "training_graphs", "gradients", "masters_and_moments"]
    assert [line.name for line in footprint(ADAPTER).lines()] == ["kept_versions", "trained_weights", *last]
    assert [line.name for line in footprint(FULL).lines()] == ["kept_versions", "largest_gradients", *last]


MODEL_TYPES = ("llama", "qwen2", "qwen3", "mistral", "gemma3_text")


def tiny_config(model_type: str, num_layers: int) -> PretrainedConfig:
    config: PretrainedConfig = AutoConfig.for_model(
        model_type,
        hidden_size=128,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        intermediate_size=320,
        vocab_size=512,
    )
    return config


def bytes_saved(model_type: str, num_layers: int, tuning: TuningConfig, tree: PrefixTree | None = None) -> int:
    """What autograd keeps of a forward pass over [2, 64] tokens, or over a tree, weights and tables of the model not
    counted."""
    attention.register()
    config = tiny_config(model_type, num_layers)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention.CAUSAL)
    model = model.to(torch.bfloat16).eval()
    if tuning.method == "adapter":
        model.requires_grad_(False)
        adapter = Adapter(model, tuning.adapter.target_modules, rank=tuning.adapter.rank, alpha=8.0)
        adapter.initialise(0)
    owned = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in owned:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        last_hidden(model, torch.zeros((2, 64) if tree is None else (1, len(tree.owners)), dtype=torch.long), tree)
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


@pytest.mark.parametrize("method", ["adapter", "full"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_autograd_saves_what_is_predicted(model_type: str, method: str) -> None:
    """One more layer costs exactly the predicted bytes for each of 128 positions. Gemma's norms also keep 1 + weight in
    fp32, whatever the number of positions: four of 128 features, two of 32."""
    tuning = TuningConfig.model_validate({"method": method, "adapter": {"rank": 8}})
    shape = shape_of(tiny_config(model_type, 4))
    predicted = TrainingFootprint(shape, tuning, longest_tokens=64, item_bytes=2, on_gpu=False)
    once = 4 * (4 * 128 + 2 * 32) if model_type == "gemma3_text" else 0
    grown = bytes_saved(model_type, 5, tuning) - bytes_saved(model_type, 4, tuning)
    assert grown == 128 * predicted.activations.saved_bytes_per_position() + once


@pytest.mark.parametrize("method", ["adapter", "full"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_autograd_saves_what_is_predicted_of_a_tree(model_type: str, method: str) -> None:
    """Of 40 nodes and three sequences of 32 positions."""
    tuning = TuningConfig.model_validate({"method": method, "adapter": {"rank": 8}})
    shape = shape_of(tiny_config(model_type, 4))
    predicted = TrainingFootprint(shape, tuning, longest_tokens=64, item_bytes=2, on_gpu=False).activations
    once = 4 * (4 * 128 + 2 * 32) if model_type == "gemma3_text" else 0
    tree = blank_tree(40, 3, 32, torch.device("cpu"))
    grown = bytes_saved(model_type, 5, tuning, tree) - bytes_saved(model_type, 4, tuning, tree)
    assert grown == 40 * predicted.saved_bytes_per_node() + 3 * 32 * predicted.saved_by_attention() + once


def test_untargeted_layers_save_no_input() -> None:
    """With an adapter on o_proj alone only attention's output is kept as an input, and attention keeps it anyway."""
    targets: Sequence[str] = ("o_proj",)
    tuning = TuningConfig(adapter=AdapterConfig(rank=8, target_modules=tuple(targets)))
    all_targets = footprint(TuningConfig(adapter=AdapterConfig(rank=8))).activations
    saved = footprint(tuning).activations.saved_bytes_per_position()
    assert all_targets.saved_bytes_per_position() - saved == (1536 + 1536 + 8960 + 6 * 8) * 2
