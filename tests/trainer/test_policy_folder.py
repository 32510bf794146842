"""Policies on disk: whole, checked, immutable, and PEFT's own format."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor

from agent.errors import PublicationFailed
from tests.trainer.samples import SETTINGS, tiny_llama
from trainer.learner import Learner
from trainer.policy_folder import newest_version, policy_folder, read_metadata, read_policy, write_policy
from trainer.ports import PolicyMetadata

METADATA = PolicyMetadata(version=7, parent=3, run_id="run_a", base_model="tiny")
TENSORS = {"a.lora_A.weight": torch.arange(6.0).view(2, 3), "a.lora_B.weight": torch.ones(3, 2, dtype=torch.bfloat16)}
CONFIG = {"peft_type": "LORA", "r": 2}


def _write(root: Path) -> tuple[Path, str]:
    folder = policy_folder(root, METADATA.version)
    return folder, write_policy(folder, TENSORS, CONFIG, METADATA)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """Tensors with their types, configuration, metadata, and the digest of the manifest that names every file."""
    folder, digest = _write(tmp_path)
    tensors, config, read = read_policy(folder)
    torch.testing.assert_close(tensors, TENSORS, rtol=0, atol=0)
    assert (config, read, read_metadata(folder)) == (CONFIG, digest, METADATA)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["files"]) == {path.name for path in folder.iterdir()} - {"manifest.json"}


def test_tensors_that_are_views_are_written_by_value(tmp_path: Path) -> None:
    """A transposed view has its own rows on disk."""
    write_policy(policy_folder(tmp_path, 1), {"a": TENSORS["a.lora_A.weight"].T}, CONFIG, METADATA)
    assert read_policy(policy_folder(tmp_path, 1))[0]["a"].tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_changed_byte_is_found(tmp_path: Path, name: str) -> None:
    """The message names the file and both digests."""
    folder, _ = _write(tmp_path)
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(PublicationFailed, match=f"v7/{name} must have sha256"):
        read_policy(folder)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "manifest.json"])
def test_a_missing_file_is_found(tmp_path: Path, name: str) -> None:
    """A folder that lost a file is no policy."""
    folder, _ = _write(tmp_path)
    (folder / name).unlink()
    with pytest.raises(PublicationFailed, match="v7 cannot be read"):
        read_policy(folder)


@pytest.mark.parametrize("content", ["", "[]", '{"version": 7, "files": {}}'])
def test_a_manifest_that_says_too_little_is_refused(tmp_path: Path, content: str) -> None:
    """Half-written JSON, other JSON, and JSON without what a policy is."""
    folder, _ = _write(tmp_path)
    (folder / "manifest.json").write_text(content)
    with pytest.raises(PublicationFailed, match="v7 has no readable manifest"):
        read_metadata(folder)
    with pytest.raises(PublicationFailed, match="v7 cannot be read"):
        read_policy(folder)


def test_a_written_policy_is_immutable(tmp_path: Path) -> None:
    """A second write of a version is refused and leaves the first."""
    folder, digest = _write(tmp_path)
    with pytest.raises(PublicationFailed, match="immutable, and v7 exists"):
        _write(tmp_path)
    assert read_policy(folder)[2] == digest


def test_a_half_written_policy_is_not_seen(tmp_path: Path) -> None:
    """What a crash leaves is a folder of another name; the next write of the version goes through."""
    _write(tmp_path)
    (tmp_path / ".v9.partial-1").mkdir()
    (tmp_path / "v8").mkdir()
    (tmp_path / "vendor").mkdir()
    assert newest_version(tmp_path) == 8
    write_policy(policy_folder(tmp_path, 9), TENSORS, CONFIG, METADATA)
    assert newest_version(tmp_path) == 9


def test_without_policies_the_newest_is_the_base(tmp_path: Path) -> None:
    """Also when the folder does not exist yet."""
    assert newest_version(tmp_path / "none") == 0


def test_a_disk_that_refuses_is_a_failed_publication(tmp_path: Path) -> None:
    """The root is a file here, so no folder can be made below it."""
    (tmp_path / "root").write_text("")
    with pytest.raises(PublicationFailed, match="v7 could not be written"):
        _write(tmp_path / "root")
    assert newest_version(tmp_path / "root") == 0


def _logits(model: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(input_ids=torch.tensor([[3, 4, 20, 21]])).logits
    return logits


def test_peft_loads_what_a_learner_wrote(tmp_path: Path) -> None:
    """PeftModel.from_pretrained gives the learner's logits, which are not the base model's."""
    learner = Learner(tiny_llama(), base_model="tiny")
    learner.begin(SETTINGS, None)
    generator = torch.Generator().manual_seed(1)
    weights = {name: torch.randn(value.shape, generator=generator) for name, value in learner.snapshot().items()}
    learner.begin(SETTINGS, weights)
    folder = policy_folder(tmp_path, 1)
    write_policy(folder, learner.snapshot(), learner.adapter_config(), METADATA)
    loaded = PeftModel.from_pretrained(tiny_llama(), str(folder))
    torch.testing.assert_close(_logits(loaded), _logits(learner.model))
    assert not torch.allclose(_logits(loaded), _logits(tiny_llama()))
