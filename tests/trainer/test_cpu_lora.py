"""LoRA for a batch in which tokens use different adapters, or none."""

import torch
from torch import Tensor

from trainer.cpu_lora import SlotTokens, add_lora_linear, by_slot


def test_values_by_hand() -> None:
    """x = (2, 3), A = (1, 1), B = (10, -1)^T, scale 0.5: (2 + 3) x 0.5 = 2.5, so y grows by (25, -2.5).

    The second token has slot -1 and keeps its y; the third uses slot 0, whose weights are zero.
    """
    lora_a, lora_b = torch.zeros(2, 1, 1, 2), torch.zeros(2, 1, 2, 1)
    lora_a[1, 0, 0] = 1
    lora_b[1, 0, :, 0] = torch.tensor([10.0, -1.0])
    y = torch.full((3, 2), 100.0)
    x = torch.tensor([[2.0, 3.0]] * 3)
    add_lora_linear(y, x, [lora_a], [lora_b], scale=0.5, slice_sizes=[2], tokens=by_slot(torch.tensor([1, -1, 0])))
    assert y.tolist() == [[125.0, 97.5], [100.0, 100.0], [100.0, 100.0]]


def _weights(generator: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
    """Three slots, rank 2, inputs of 5; slices of 4 and 3."""
    lora_a = [torch.randn(3, 1, 2, 5, generator=generator) for _ in range(2)]
    lora_b = [torch.randn(3, 1, size, 2, generator=generator) for size in (4, 3)]
    return lora_a, lora_b


def _naive(y: Tensor, x: Tensor, lora_a: list[Tensor], lora_b: list[Tensor], slots: list[int]) -> Tensor:
    """The formula, one token and slice at a time, with scale 0.5."""
    expected = y.clone()
    for token, slot in enumerate(slots):
        if slot >= 0:
            update = [b[slot, 0] @ (a[slot, 0] @ x[token]) for a, b in zip(lora_a, lora_b, strict=True)]
            expected[token] += 0.5 * torch.cat(update)
    return expected


def test_several_adapters_in_one_batch() -> None:
    """Every token gets its own adapter's update, whatever its neighbours use."""
    generator = torch.Generator().manual_seed(0)
    lora_a, lora_b = _weights(generator)
    for slots in ([2, 0, -1, 2, 1, -1], [1] * 6, [-1] * 6):
        y, x = torch.randn(6, 7, generator=generator), torch.randn(6, 5, generator=generator)
        expected = _naive(y, x, lora_a, lora_b, slots)
        add_lora_linear(y, x, lora_a, lora_b, scale=0.5, slice_sizes=[4, 3], tokens=by_slot(torch.tensor(slots)))
        torch.testing.assert_close(y, expected)


def test_a_slice_may_be_narrower_than_its_padded_weights() -> None:
    """vLLM pads B of a slice; rows beyond the slice's size are not written into the next one."""
    lora_a, lora_b = torch.ones(1, 1, 1, 1), torch.ones(1, 1, 3, 1)
    y = torch.zeros(1, 3)
    slots = torch.tensor([0])
    add_lora_linear(y, torch.ones(1, 1), [lora_a], [lora_b], scale=1.0, slice_sizes=[2], tokens=by_slot(slots))
    assert y.tolist() == [[1.0, 1.0, 0.0]]


def test_many_tokens_are_as_few() -> None:
    """Whether the products are made in fp32 or in the batch's type, to what bfloat16 rounds: 2 to the -8."""
    generator = torch.Generator().manual_seed(1)
    lora_a, lora_b = ([part.bfloat16() for part in parts] for parts in _weights(generator))
    x = torch.randn(4, 5, generator=generator).bfloat16()
    results = []
    for times in (1, 32):
        y = torch.zeros(4 * times, 7, dtype=torch.bfloat16)
        slots = torch.tensor([2, 0, -1, 2] * times)
        add_lora_linear(y, x.repeat(times, 1), lora_a, lora_b, scale=0.5, slice_sizes=[4, 3], tokens=by_slot(slots))
        results.append(y[:4])
    torch.testing.assert_close(results[0], results[1], rtol=2**-6, atol=2**-6)


def test_tokens_are_told_apart_by_their_slots() -> None:
    """All of them where there is one slot, none where there is none."""
    assert by_slot(torch.tensor([-1, -1])) == []
    assert by_slot(torch.tensor([3, 3])) == [SlotTokens(3, None)]
    zero, two = by_slot(torch.tensor([2, -1, 0, 2]))
    assert (zero.slot, two.slot) == (0, 2)
    assert zero.rows is not None
    assert two.rows is not None
    assert (zero.rows.tolist(), two.rows.tolist()) == ([False, False, True, False], [True, False, False, True])
