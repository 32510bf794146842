"""Trees by hand, and that a model makes of them what it makes of the sequences."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tiny_decoders import CONFIGS, tiny_decoder
from tests.trainer.test_cutting import grown, trees
from trainer import attention
from trainer.batch import TrainingBatch
from trainer.microbatch import Microbatch, Shape
from trainer.objective import last_hidden
from trainer.prefix_tree import PrefixTree, blank_tree

CPU = torch.device("cpu")


def forked() -> PrefixTree:
    """Nodes 0 1 | 2 and 0 1 | 3, and a fourth that is padding; two sequences of three positions, and one of padding."""
    return PrefixTree(
        depths=torch.tensor([[0, 1, 2, 2, 0]]),
        paths=torch.tensor([[0, 1, 2], [0, 1, 3], [4, 0, 1]]),
        owners=torch.tensor([0, 1, 2, 5, 0]),
        borrowed=torch.tensor([0, 0, 0, 1, 1, 0, 1, 1, 1]).bool().unsqueeze(1),
        padding=torch.tensor([0, 0, 0, 0, 1]).bool().unsqueeze(1),
    )


def heads(*values: float) -> Tensor:
    """[1, 1, U, 1]: one head, one feature."""
    return torch.tensor(values, dtype=torch.float32).view(1, 1, -1, 1).requires_grad_()


def test_positions_get_their_nodes_values() -> None:
    """[B, N, L, D]: along the paths, padding too."""
    nodes = heads(10, 11, 12, 13, 14)
    for found in (forked().queries(nodes), forked().keys(nodes)):
        assert found.shape == (3, 1, 3, 1)
        assert found[:, 0, :, 0].tolist() == [[10, 11, 12], [10, 11, 13], [14, 10, 11]]


def test_gradients_of_a_nodes_keys_add_up_and_queries_are_the_owners() -> None:
    """Positions have gradients 1 2 3 | 4 5 6, padding none. Node 0 has 1 + 4 as a key, and 1 as a query."""
    upstream = torch.tensor([[1.0, 2, 3], [4, 5, 6], [0, 0, 0]]).view(3, 1, 3, 1)
    keys, queries = heads(0, 0, 0, 0, 0), heads(0, 0, 0, 0, 0)
    forked().keys(keys).backward(upstream)
    forked().queries(queries).backward(upstream)
    assert keys.grad is not None
    assert queries.grad is not None
    assert keys.grad.flatten().tolist() == [5, 7, 3, 6, 0]
    assert queries.grad.flatten().tolist() == [1, 2, 3, 6, 0]


def test_sums_of_many_siblings_keep_their_digits() -> None:
    """In bfloat16 256 + 1 is 256: 512 siblings of gradient 1 and 512 of 1/64 add up to 520 before they are rounded."""
    tree = blank_tree(2, 1024, 1, CPU)
    keys = torch.zeros(1, 1, 2, 1, dtype=torch.bfloat16, requires_grad=True)
    upstream = torch.tensor([1.0, 1 / 64], dtype=torch.bfloat16).repeat(512).view(1024, 1, 1, 1)
    tree.keys(keys).backward(upstream)
    assert keys.grad is not None
    assert keys.grad.flatten().tolist() == [520, 0]


def test_outputs_are_the_owners() -> None:
    """[B, L, N, D] to [1, U, N, D]; positions that own no node get no gradient."""
    positions = torch.arange(9.0).view(3, 3, 1, 1).requires_grad_()
    found = forked().outputs(positions)
    assert found.shape == (1, 5, 1, 1)
    assert found.flatten()[:4].tolist() == [0, 1, 2, 5]
    found.backward(torch.tensor([1.0, 2, 3, 4, 0]).view(1, 5, 1, 1))
    assert positions.grad is not None
    assert positions.grad.flatten().tolist() == [1, 2, 3, 0, 0, 4, 0, 0, 0]


WINDOWS: dict[str, dict[str, Any]] = {
    "MistralForCausalLM": {"sliding_window": 5},
    "Gemma3ForCausalLM": {"sliding_window": 5},
    "Qwen2ForCausalLM": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
}
COMMON = [1, 5, 9, 40, 3, 17]


def batch() -> TrainingBatch:
    """Two prompts that begin alike and one that does not; replies that begin alike, that are equal, and one of a
    token."""
    first, second, third = [*COMMON, 17, 30], [*COMMON, 2], [8, 11, 4]
    return trees(
        (first, [20, 21, 22, 23, 24]),
        (first, [20, 21, 30]),
        (second, [7, 7]),
        (second, [7, 7]),
        (third, [12]),
        (third, [6, 1, 9, 12, 40, 3, 21, 22, 23, 24, 25]),
        length=32,
    )


def computed(architecture: str, microbatches: list[Microbatch]) -> tuple[list[Tensor], dict[str, Tensor | None]]:
    """For each sequence what its sampled tokens are predicted from, [R, H], and the gradients of its squares' sum."""
    model = tiny_decoder(architecture, **WINDOWS.get(architecture, {}))
    model.set_attn_implementation(attention.CAUSAL)
    found: dict[int, Tensor] = {}
    for one in microbatches:
        hidden = last_hidden(model, one.token_ids, one.tree).flatten(0, 1)[one.predictors.flatten()]
        places = one.by_sequence(torch.arange(len(hidden)))
        hidden[places[one.mask]].square().sum().backward()
        for row, advantage in enumerate(one.advantages.tolist()):
            if advantage:
                found[int(advantage)] = hidden[places[row][one.mask[row]]].detach()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return [found[key] for key in sorted(found)], gradients


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize(("tokens", "shapes"), [(64, []), (16, []), (64, [Shape(8, 32, 32, 64)])])
def test_a_model_makes_of_a_tree_what_it_makes_of_the_sequences(
    architecture: str, tokens: int, shapes: list[Shape]
) -> None:
    """Hidden states and every parameter's gradient, in one tree, in several, and in one with padding; grouped heads,
    windows that end within the common beginning, rotations by the position in the sequence."""
    attention.register()
    apart = grown(batch(), siblings=1)
    shared = grown(batch(), tokens=tokens, shapes=shapes)
    assert all(one.tree is not None for one in shared)
    assert sum(one.num_positions for one in shared) < sum(one.num_positions for one in apart)
    assert (len(shared) > 1) == (tokens == 16)
    expected, found = computed(architecture, apart), computed(architecture, shared)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1e-4)


def test_another_attention_is_refused() -> None:
    """It would read all nodes as one sequence, and nothing would say so."""
    model = tiny_decoder("LlamaForCausalLM")
    model.set_attn_implementation("sdpa")
    with pytest.raises(ValueError, match="a tree needs the attention coloq_causal, got sdpa"):
        last_hidden(model, torch.zeros((1, 4), dtype=torch.long), blank_tree(4, 2, 3, CPU))


def test_a_blank_tree_is_padding_throughout() -> None:
    """On which nothing depends: no position owns a node, and no sequence passes through one."""
    tree = blank_tree(4, 2, 3, CPU)
    assert (tree.depths.shape, tree.paths.shape) == ((1, 4), (2, 3))
    assert tree.borrowed.all()
    assert tree.padding.all()
