"""Named views of one flat tensor."""

import pytest
import torch
from torch import Tensor

from trainer.flat_tensors import FlatLayout, FlatTensors


def _tensors() -> dict[str, Tensor]:
    return {"a": torch.arange(6.0).view(2, 3), "b": torch.arange(6.0, 8.0), "c": torch.arange(8.0, 12.0).view(2, 2)}


def test_they_are_what_they_were_made_of() -> None:
    """In their order, by name; what lies flat already is taken as it is."""
    flat = FlatTensors.of(_tensors())
    assert flat.flat.tolist() == list(range(12))
    assert list(flat) == ["a", "b", "c"]
    assert len(flat) == 3
    torch.testing.assert_close(dict(flat), _tensors(), rtol=0, atol=0)
    assert FlatTensors.of(flat) is flat
    with pytest.raises(KeyError):
        flat["d"]


def test_they_are_views_of_the_flat_one() -> None:
    """Nothing is copied when one is asked for."""
    flat = FlatTensors.of(_tensors())
    flat["b"].zero_()
    assert flat.flat.tolist() == [0, 1, 2, 3, 4, 5, 0, 0, 8, 9, 10, 11]
    assert [piece.tolist() for piece in flat.pieces()] == [[0, 1, 2, 3, 4, 5], [0, 0], [8, 9, 10, 11]]


def test_they_move_together() -> None:
    """And stay where they are when they need not move."""
    flat = FlatTensors.of(_tensors())
    half = flat.to(torch.device("cpu"), torch.bfloat16)
    assert (half["a"].dtype, half["a"].shape, half.layout) == (torch.bfloat16, (2, 3), flat.layout)
    assert flat.to(torch.device("cpu")).flat is flat.flat


def test_a_layout_says_where_each_lies() -> None:
    """By hand: 6, 2 and 4 numbers one behind the other."""
    layout = FlatLayout({"a": (2, 3), "b": (2,), "c": (2, 2)})
    assert (layout.starts, layout.sizes, layout.names) == ({"a": 0, "b": 6, "c": 8}, [6, 2, 4], ("a", "b", "c"))
