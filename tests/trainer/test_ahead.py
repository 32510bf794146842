"""A model that computes with borrowed weights."""

import pytest
import torch

from tests.trainer.samples import tiny_llama
from trainer.ahead import computing_with

IDS = torch.tensor([[3, 4, 5, 6]])


@pytest.mark.parametrize("tied", [False, True])
def test_it_computes_as_the_owner_of_the_weights(tied: bool) -> None:
    """Exactly, for every parameter is borrowed; afterwards the model is what it was, parameter for parameter."""
    model, other = tiny_llama(tied=tied), tiny_llama(tied=tied, seed=1)
    own = list(model.parameters())
    before = model(input_ids=IDS).logits
    with computing_with(model, dict(zip(model.parameters(), other.parameters(), strict=True))):
        assert torch.equal(model(input_ids=IDS).logits, other(input_ids=IDS).logits)
    assert all(ours is theirs for ours, theirs in zip(model.parameters(), own, strict=True))
    assert torch.equal(model(input_ids=IDS).logits, before)


def test_what_fails_gives_back_what_it_borrowed() -> None:
    """A token that the model does not have ends the pass in the embedding; a wrong shape ends it inside a layer."""
    model, other = tiny_llama(), tiny_llama(seed=1)
    own = list(model.parameters())
    weights = dict(zip(model.parameters(), (parameter.double() for parameter in other.parameters()), strict=True))
    with pytest.raises(IndexError), computing_with(model, weights):
        model(input_ids=torch.tensor([[10_000]]))
    weights[model.model.layers[1].mlp.down_proj.weight] = torch.zeros(3, 3)
    with pytest.raises(RuntimeError), computing_with(model, weights):
        model(input_ids=IDS)
    assert all(ours is theirs for ours, theirs in zip(model.parameters(), own, strict=True))


def test_values_are_rounded_to_the_models_type() -> None:
    """Double precision comes down to the single precision that the model computes in."""
    model, other = tiny_llama(), tiny_llama(seed=1)
    doubles = (parameter.double() for parameter in other.parameters())
    with computing_with(model, dict(zip(model.parameters(), doubles, strict=True))):
        assert torch.equal(model(input_ids=IDS).logits, other(input_ids=IDS).logits)
