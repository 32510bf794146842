"""Tensors in one file or several."""

from pathlib import Path

import pytest
import torch

from trainer import shards
from trainer.shards import read_shards, write_shards

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.bfloat16), "c": torch.tensor(7.0)}


@pytest.mark.parametrize(
    ("shard_bytes", "names"),
    [
        (2**31, {"state.safetensors"}),
        # a has 24 bytes, b 8, c 4: 24 | 8 + 4.
        (
            24,
            {
                "state-00001-of-00002.safetensors",
                "state-00002-of-00002.safetensors",
                "state.safetensors.index.json",
            },
        ),
    ],
)
def test_what_is_written_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_bytes: int, names: set[str]
) -> None:
    """By name, with types and shapes, a scalar among them; the stem tells several sets in one folder apart."""
    monkeypatch.setattr(shards, "_SHARD_BYTES", shard_bytes)
    write_shards(tmp_path, TENSORS, stem="state")
    assert {path.name for path in tmp_path.iterdir()} == names
    torch.testing.assert_close(dict(read_shards(tmp_path, stem="state")), TENSORS, rtol=0, atol=0)
    with pytest.raises(FileNotFoundError):
        list(read_shards(tmp_path))
