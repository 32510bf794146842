"""fp32 masters beside compute-precision tensors."""

import pytest
import torch
from torch import nn

from agent.errors import TrainerFailed
from trainer.optimizer import MasterAdamW, Optimizer


def _step(optimizer: Optimizer, gradient: torch.Tensor, *, max_grad_norm: float = 1.0) -> None:
    optimizer.discard()
    optimizer.gradients[0].add_(gradient)
    optimizer.step(max_grad_norm=max_grad_norm, gradient_norm=float(optimizer.gradient_norm()))


def test_in_fp32_it_is_adamw() -> None:
    """Five steps with decay and gradient clipping give torch's AdamW to the last bit but rounding."""
    generator = torch.Generator().manual_seed(0)
    ours = torch.randn(3, 4, generator=generator)
    theirs = nn.Parameter(ours.clone())
    optimizer = MasterAdamW([ours], learning_rate=0.05, weight_decay=0.1)
    reference = torch.optim.AdamW([theirs], lr=0.05, weight_decay=0.1)
    for _ in range(5):
        gradient = torch.randn(3, 4, generator=generator)
        theirs.grad = gradient.clone()
        _step(optimizer, gradient)
        optimizer.write([ours])
        torch.nn.utils.clip_grad_norm_([theirs], 1.0)
        reference.step()
        torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=1e-6)


def test_one_flat_tensor_is_updated_as_its_parts_are() -> None:
    """AdamW knows no neighbours, and the norm of (1, 2) and (2, 4) is that of (1, 2, 2, 4): sqrt(25) = 5."""
    flat = MasterAdamW([torch.ones(4)], learning_rate=0.1, weight_decay=0.1)
    parts = MasterAdamW([torch.ones(2), torch.ones(2)], learning_rate=0.1, weight_decay=0.1)
    for optimizer in (flat, parts):
        for gradient, values in zip(
            optimizer.gradients, torch.tensor([1.0, 2.0, 2.0, 4.0]).split(4 // len(optimizer.gradients)), strict=True
        ):
            gradient.add_(values)
        assert optimizer.gradient_norm() == 5.0
        optimizer.step(max_grad_norm=1.0, gradient_norm=5.0)
    assert torch.equal(flat.masters[0], torch.cat(parts.masters))


def test_masters_keep_updates_that_bf16_would_lose() -> None:
    """Steps of 1e-4 from 1.0: bf16 has a spacing of 2^-7 there and would stay; forty masters' steps reach 0.996.

    0.996 lies 0.0040 below 1.0, more than half of bf16's spacing of 2^-8 below one, so the tensor has moved by one.
    """
    tensor = torch.ones(1, dtype=torch.bfloat16)
    optimizer = MasterAdamW([tensor], learning_rate=1e-4, weight_decay=0.0)
    for _ in range(40):
        _step(optimizer, torch.ones(1, dtype=torch.bfloat16), max_grad_norm=10.0)
        optimizer.write([tensor])
    assert tensor.item() == 1 - 2**-8
    naive = torch.ones(1, dtype=torch.bfloat16)
    for _ in range(40):
        naive -= 1e-4
    assert naive.item() == 1.0


def test_only_a_write_changes_the_tensors() -> None:
    """Also in fp32, where a master could have been the tensor itself."""
    tensor = torch.ones(2)
    optimizer = MasterAdamW([tensor], learning_rate=0.5, weight_decay=0.0)
    _step(optimizer, torch.ones(2))
    assert tensor.tolist() == [1.0, 1.0]
    optimizer.write([tensor])
    assert tensor.tolist() == pytest.approx([0.5, 0.5])


def test_gradients_add_up_over_micro_batches() -> None:
    """(3, 0) and (0, 4) make (3, 4), whose norm is 5; bf16 is added in fp32."""
    optimizer = MasterAdamW([torch.zeros(2, dtype=torch.bfloat16)], learning_rate=0.1, weight_decay=0.0)
    for gradient in ([3.0, 0.0], [0.0, 4.0]):
        optimizer.gradients[0].add_(torch.tensor(gradient, dtype=torch.bfloat16))
    assert optimizer.gradients[0].dtype == torch.float32
    assert optimizer.gradient_norm() == 5.0


def test_gradients_keep_their_memory() -> None:
    """A captured graph adds to the same addresses in every step."""
    optimizer = MasterAdamW([torch.zeros(2)], learning_rate=0.1, weight_decay=0.0)
    address = optimizer.gradients[0].data_ptr()
    _step(optimizer, torch.ones(2))
    optimizer.discard()
    assert optimizer.gradients[0].data_ptr() == address


def test_discarded_gradients_are_gone() -> None:
    """Nothing of them is in the next step, not even what was not finite."""
    optimizer = MasterAdamW([torch.zeros(1)], learning_rate=0.1, weight_decay=0.0)
    optimizer.gradients[0].add_(float("nan"))
    optimizer.discard()
    assert optimizer.gradient_norm() == 0.0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_leaves_the_masters(value: float) -> None:
    """It is refused before the step, and the next one goes on from the same weights and moments."""
    optimizer = MasterAdamW([torch.tensor([0.5])], learning_rate=0.125, weight_decay=0.0)
    with pytest.raises(TrainerFailed, match=r"norm of the gradient must be finite, got (nan|inf)"):
        _step(optimizer, torch.tensor([value]))
    assert optimizer.masters[0].item() == 0.5
    _step(optimizer, torch.ones(1))
    assert optimizer.masters[0].item() == pytest.approx(0.375)  # Adam's first step is the learning rate


def test_an_update_that_is_not_finite_is_not_written() -> None:
    """An infinite learning rate is refused, and the weight is what it was."""
    tensor = torch.tensor([0.5])
    optimizer = MasterAdamW([tensor], learning_rate=float("inf"), weight_decay=0.0)
    with pytest.raises(TrainerFailed, match="updated weights must be finite"):
        _step(optimizer, torch.ones(1))
    assert tensor.item() == 0.5


def test_a_restored_optimizer_goes_on_to_the_last_bit() -> None:
    """After two steps of three: masters, moments and bias correction are what they were, and so is the third step."""
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(3, 4, generator=generator), torch.randn(2, generator=generator)]
    gradients = [[torch.randn(tensor.shape, generator=generator) for tensor in tensors] for _ in range(3)]

    def take(optimizer: Optimizer, step: list[torch.Tensor]) -> None:
        optimizer.discard()
        torch._foreach_add_(optimizer.gradients, step)
        optimizer.step(max_grad_norm=1.0, gradient_norm=float(optimizer.gradient_norm()))

    ours = MasterAdamW(tensors, learning_rate=0.05, weight_decay=0.1)
    take(ours, gradients[0])
    take(ours, gradients[1])
    state = {name: tensor.clone() for name, tensor in ours.export().items()}
    used = MasterAdamW([torch.zeros_like(tensor) for tensor in tensors], learning_rate=0.05, weight_decay=0.1)
    take(used, gradients[2])
    fresh = MasterAdamW([torch.zeros_like(tensor) for tensor in tensors], learning_rate=0.05, weight_decay=0.1)
    take(ours, gradients[2])
    for other in (used, fresh):
        other.restore(state.items())
        assert all(
            torch.equal(a, b) for a, b in zip(other.masters, (state["master.0"], state["master.1"]), strict=True)
        )
        take(other, gradients[2])
        assert all(torch.equal(a, b) for a, b in zip(other.masters, ours.masters, strict=True))
    assert state["step.0"] == 2.0


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"master.0": torch.zeros(3)}, "master.0 does not"),
        ({"master.1": torch.zeros(2)}, "master.1 does not"),
        ({"master.0": torch.zeros(2)}, "lacks exp_avg.0"),
    ],
)
def test_a_state_of_other_tensors_is_refused(state: dict[str, torch.Tensor], message: str) -> None:
    """Another shape, a tensor too many, one too few: the message names it."""
    with pytest.raises(TrainerFailed, match=message):
        MasterAdamW([torch.zeros(2)], learning_rate=0.1, weight_decay=0.0).restore(state.items())
