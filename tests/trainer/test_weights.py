"""Adapters and live weights as a run trains them: begun anew in the same memory, published, given back."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from agent.errors import TrainerFailed
from tests.trainer.samples import SETTINGS, tiny_llama
from trainer.ports import LearnerSettings
from trainer.weights import AdapterWeights, FullWeights, TrainedWeights, copy_into

FULL = replace(SETTINGS, method="full", learning_rate=1e-2)
IDS = torch.tensor([[3, 4, 5, 6], [20, 21, 22, 9]])
WANTED = (7, 8, 7)


def _loss(model: LlamaForCausalLM, wanted: int) -> Tensor:
    """Minus the mean log-probability of one token."""
    return -torch.log_softmax(model(input_ids=IDS).logits, dim=-1)[..., wanted].mean()


def _train(model: LlamaForCausalLM, weights: TrainedWeights, wanted: Sequence[int] = WANTED) -> None:
    """One step for each wanted token, published where that is for the caller to do."""
    for token in wanted:
        weights.optimizer.discard()
        _loss(model, token).backward()
        weights.optimizer.step(max_grad_norm=1.0, gradient_norm=float(weights.optimizer.gradient_norm()))
        weights.after_step()
        if isinstance(weights, FullWeights):
            weights.publish()


def _copy(model: LlamaForCausalLM) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def _assert_same(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def _memory(weights: TrainedWeights) -> list[int]:
    """Addresses that a captured graph would hold, beside those of the model."""
    return [tensor.data_ptr() for tensor in weights.optimizer.gradients]


def test_only_an_adapter_has_its_base_at_hand() -> None:
    """The model's own weights are trained in their place, so what they were is gone."""
    with pytest.raises(TrainerFailed, match="holds no copy of the base model"):
        FullWeights(tiny_llama(), FULL).as_base()
    model = tiny_llama()
    base = model(input_ids=IDS).logits
    weights = AdapterWeights(model, SETTINGS, None)
    _train(model, weights)
    with weights.as_base():
        assert torch.equal(model(input_ids=IDS).logits, base)


@pytest.mark.parametrize("from_parent", [False, True])
@pytest.mark.parametrize("settings", [SETTINGS, replace(SETTINGS, learning_rate=3e-3, weight_decay=0.1, seed=4)])
def test_an_adapter_begun_anew_is_a_new_one(settings: LearnerSettings, from_parent: bool) -> None:
    """After a run of three steps, the next three are those of an adapter that was just made, to the last bit."""
    parent_model = tiny_llama()
    parent_weights = AdapterWeights(parent_model, SETTINGS, None)
    _train(parent_model, parent_weights)
    parent = parent_weights.snapshot() if from_parent else None

    used_model, new_model = tiny_llama(), tiny_llama()
    used = AdapterWeights(used_model, SETTINGS, None)
    _train(used_model, used)
    used.restart(settings, parent)
    new = AdapterWeights(new_model, settings, parent)
    _assert_same(used.snapshot(), new.snapshot())
    _train(used_model, used)
    _train(new_model, new)
    _assert_same(used.snapshot(), new.snapshot())


def test_an_adapter_begun_anew_stays_in_its_memory() -> None:
    """A captured graph reads the adapter and adds to its gradients at the same addresses in every run."""
    model = tiny_llama()
    weights = AdapterWeights(model, SETTINGS, None)
    before = _memory(weights), [parameter.data_ptr() for parameter in model.parameters()]
    _train(model, weights)
    weights.restart(replace(SETTINGS, seed=9), weights.snapshot())
    _train(model, weights)
    assert (_memory(weights), [parameter.data_ptr() for parameter in model.parameters()]) == before


def test_a_parent_that_does_not_fit_changes_nothing() -> None:
    """A restart that is refused leaves the run as it was: its next steps are those of one that was not asked."""
    other = AdapterWeights(tiny_llama(), replace(SETTINGS, rank=2), None).snapshot()
    model, untouched_model = tiny_llama(), tiny_llama()
    weights, untouched = (AdapterWeights(m, SETTINGS, None) for m in (model, untouched_model))
    _train(model, weights)
    _train(untouched_model, untouched)
    with pytest.raises(TrainerFailed, match="tensors differ"):
        weights.restart(SETTINGS, other)
    _train(model, weights)
    _train(untouched_model, untouched)
    _assert_same(weights.snapshot(), untouched.snapshot())


def test_a_refused_adapter_leaves_the_model() -> None:
    """A parent of another rank, and the model has its own layers and names again."""
    other = AdapterWeights(tiny_llama(), replace(SETTINGS, rank=2), None).snapshot()
    model = tiny_llama()
    with pytest.raises(TrainerFailed, match="tensors differ"):
        AdapterWeights(model, SETTINGS, other)
    _assert_same(_copy(model), _copy(tiny_llama()))


def test_an_adapter_trains_nothing_else() -> None:
    """The frozen weights get no gradient and do not move; released, the model is what it was."""
    model = tiny_llama()
    weights = AdapterWeights(model, SETTINGS, None)
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == {
        f"model.layers.{layer}.{linear}.{part}"
        for layer in (0, 1)
        for linear in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
        for part in "ab"
    }
    _train(model, weights)
    weights.release()
    _assert_same(_copy(model), _copy(tiny_llama()))
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_what_is_trained_fits_its_own_settings() -> None:
    """A run's learning rate, decay and seed are free; method, optimizer and an adapter's layout are not."""
    adapter = AdapterWeights(tiny_llama(), SETTINGS, None)
    full = FullWeights(tiny_llama(), FULL)
    assert adapter.fits(replace(SETTINGS, learning_rate=1.0, weight_decay=1.0, seed=5))
    assert full.fits(replace(FULL, learning_rate=1.0, weight_decay=1.0, seed=5, rank=64))
    assert not adapter.fits(replace(SETTINGS, rank=8))
    assert not adapter.fits(FULL)
    assert not full.fits(replace(FULL, optimizer="cpu"))
    assert not full.fits(SETTINGS)


def test_memory_by_hand() -> None:
    """An adapter of 1,472 values (tests/trainer/test_lora.py) and its gradients, each 5,888 bytes in fp32, a master and
    two moments of each; in method full the same of the model's weights, which are the engine's and do not count."""
    size = sum(parameter.nbytes for parameter in tiny_llama().parameters())
    assert AdapterWeights(tiny_llama(), SETTINGS, None).memory() == {
        "trained_weights": 5_888,
        "masters_and_moments": 17_664,
        "gradients": 5_888,
    }
    assert FullWeights(tiny_llama(), FULL).memory() == {"masters_and_moments": 3 * size, "gradients": size}


def test_live_weights_stay_until_they_are_published() -> None:
    """Steps move the masters alone; publishing makes the live weights their rounded values, in the same memory."""
    model = tiny_llama().bfloat16()
    before, addresses = _copy(model), [parameter.data_ptr() for parameter in model.parameters()]
    weights = FullWeights(model, FULL)
    weights.optimizer.discard()
    _loss(model, 7).backward()
    weights.optimizer.step(max_grad_norm=1.0, gradient_norm=float(weights.optimizer.gradient_norm()))
    weights.after_step()
    _assert_same(_copy(model), before)
    weights.publish()
    masters = dict(zip(before, weights.optimizer.masters, strict=True))
    assert {master.dtype for master in masters.values()} == {torch.float32}
    _assert_same(_copy(model), {name: master.bfloat16() for name, master in masters.items()})
    assert any(not torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    assert [parameter.data_ptr() for parameter in model.parameters()] == addresses


@pytest.mark.parametrize("tied", [False, True])
def test_gradients_are_autograd_s(tied: bool) -> None:
    """Two backward passes add up to what autograd adds up on a plain model. A tied embedding is one tensor with one sum
    of what both of its uses contribute, and no gradient stays on the weights."""
    model, plain = tiny_llama(tied=tied), tiny_llama(tied=tied)
    weights = FullWeights(model, FULL)
    weights.optimizer.discard()
    for wanted in (7, 8):
        _loss(model, wanted).backward()
        _loss(plain, wanted).backward()
    names = [name for name, _ in model.named_parameters()]
    assert ("lm_head.weight" in names) == (not tied)
    torch.testing.assert_close(
        dict(zip(names, weights.optimizer.gradients, strict=True)),
        {name: parameter.grad for name, parameter in plain.named_parameters()},
        rtol=0,
        atol=1e-6,
    )
    assert all(parameter.grad is None for parameter in model.parameters())


def test_live_weights_are_trained_from_where_they_are() -> None:
    """A restart takes whatever is live, keeps the memory, and forgets moments, learning rate and gradients."""
    model, new_model = tiny_llama(), tiny_llama()
    used = FullWeights(model, FULL)
    addresses = _memory(used), [parameter.data_ptr() for parameter in model.parameters()]
    _train(model, used)
    copy_into(model, _copy(tiny_llama()))
    settings = replace(FULL, learning_rate=2e-3, weight_decay=0.1)
    used.restart(settings, None)
    new = FullWeights(new_model, settings)
    _train(model, used)
    _train(new_model, new)
    _assert_same(_copy(model), _copy(new_model))
    assert (_memory(used), [parameter.data_ptr() for parameter in model.parameters()]) == addresses


def test_a_snapshot_of_live_weights_is_a_copy() -> None:
    """What was taken stays when the next step is published."""
    model = tiny_llama()
    weights = FullWeights(model, FULL)
    taken = weights.snapshot()
    _train(model, weights)
    _assert_same(taken, _copy(tiny_llama()))


def test_released_weights_are_frozen() -> None:
    """Nothing needs a gradient any more, and should it again, it is no longer collected."""
    model = tiny_llama()
    weights = FullWeights(model, FULL)
    weights.optimizer.discard()
    weights.release()
    assert not any(parameter.requires_grad for parameter in model.parameters())
    model.requires_grad_(True)
    _loss(model, 7).backward()
    assert weights.optimizer.gradient_norm() == 0.0
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("tied", [False, True])
def test_copied_weights_are_the_model_s(tied: bool) -> None:
    """By name, in the model's memory and precision; a tied head needs no tensor of its own."""
    model, other = tiny_llama(tied=tied).bfloat16(), tiny_llama(tied=tied, seed=1)
    addresses = [parameter.data_ptr() for parameter in model.parameters()]
    copy_into(model, _copy(other))
    _assert_same(_copy(model), _copy(other.bfloat16()))
    assert [parameter.data_ptr() for parameter in model.parameters()] == addresses


@pytest.mark.parametrize("misfit", ["missing", "surplus", "shape"])
def test_weights_that_do_not_fit_are_refused(misfit: str) -> None:
    """One tensor that is missing, too many or of another shape: the message names it, and no weight is changed."""
    model = tiny_llama()
    tensors = _copy(tiny_llama(seed=1))
    name = {"missing": "model.norm.weight", "surplus": "model.extra.weight", "shape": "lm_head.weight"}[misfit]
    if misfit == "missing":
        del tensors[name]
    else:
        tensors[name] = torch.zeros(3)
    with pytest.raises(TrainerFailed, match=f"1 tensors differ, the first is {name}"):
        copy_into(model, tensors)
    _assert_same(_copy(model), _copy(tiny_llama()))
