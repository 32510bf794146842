"""Policies on disk: whole, checked, immutable, and PEFT's own format."""

import json
import resource
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

from agent.errors import PublicationFailed
from tests.trainer.samples import SETTINGS, tiny_llama
from trainer import shards
from trainer.learner import Learner
from trainer.policy_folder import (
    newest_version,
    policy_folder,
    read_metadata,
    read_model,
    read_policy,
    remove_unfinished,
    verify_policy,
    write_model,
    write_policy,
)
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


@pytest.mark.parametrize("content", ["", "[]", '{"version": 7, "files": {}}', '{"version": 7, "files": []}'])
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


def test_a_full_disk_is_left_as_it_was(tmp_path: Path) -> None:
    """A publication that finds no room fails as one, and leaves nothing of the files that it had begun."""
    weights = {"a": torch.zeros(50_000)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # half of what the weights take
    try:
        with pytest.raises(PublicationFailed, match="v7 could not be written"):
            write_policy(policy_folder(tmp_path, 7), weights, CONFIG, METADATA)
        with pytest.raises(PublicationFailed, match="v8 could not be written"):
            write_model(policy_folder(tmp_path, 8), weights, CONFIG, METADATA)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    """Whole policies stay, and so does what is not the node's."""
    _write(tmp_path)
    for name in (".v8.partial-12", ".v9.partial-3", "notes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "v7"]
    remove_unfinished(tmp_path / "none")


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


FULL = replace(METADATA, method="full")


def _write_tiny_llama(root: Path, *, tied: bool = False, shard_bytes: int | None = None) -> Path:
    """A whole model as a policy; with 20,000 bytes a shard it takes several."""
    model = tiny_llama(tied=tied)
    folder = policy_folder(root, 7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "_SHARD_BYTES", shard_bytes or 2**31)
        write_model(folder, dict(model.named_parameters()), json.loads(model.config.to_json_string()), FULL)
    return folder


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shard_bytes", [None, 20_000])
def test_full_weights_load_with_transformers(tmp_path: Path, tied: bool, shard_bytes: int | None) -> None:
    """In one file and in several; tied weights are written once."""
    folder = _write_tiny_llama(tmp_path, tied=tied, shard_bytes=shard_bytes)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(_logits(loaded.float()), _logits(tiny_llama(tied=tied)))
    names = {path.name for path in folder.iterdir()}
    assert ("model.safetensors" in names) is (shard_bytes is None)
    assert ("model.safetensors.index.json" in names) is (shard_bytes is not None)


def test_full_weights_are_read_back_shard_by_shard(tmp_path: Path) -> None:
    """Every file is in the manifest, no shard is larger than asked, and the values are the same."""
    folder = _write_tiny_llama(tmp_path, shard_bytes=20_000)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["files"]) == {path.name for path in folder.iterdir()} - {"manifest.json"}
    assert (read_metadata(folder), manifest["method"]) == (FULL, "full")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    parameters = dict(tiny_llama().named_parameters())
    sizes: dict[str, int] = {}
    for name, file in index["weight_map"].items():
        sizes[file] = sizes.get(file, 0) + parameters[name].nbytes
    assert len(sizes) > 1
    assert max(sizes.values()) <= 20_000
    assert index["metadata"]["total_size"] == sum(sizes.values())
    read = dict(read_model(folder))
    assert read.keys() == parameters.keys()
    assert all(torch.equal(read[name], parameter) for name, parameter in parameters.items())


def test_views_of_one_tensor_are_written_by_value(tmp_path: Path) -> None:
    """The training model's query, key and value weights lie in one tensor of the engine, here in bf16."""
    fused = torch.arange(12, dtype=torch.bfloat16).view(6, 2)
    write_model(policy_folder(tmp_path, 1), {"q": fused[:4], "k": fused[4:5], "v": fused[5:]}, {}, FULL)
    read = dict(read_model(policy_folder(tmp_path, 1)))
    assert torch.equal(torch.cat([read["q"], read["k"], read["v"]]), fused)


def test_any_folder_of_a_model_can_be_read(tmp_path: Path) -> None:
    """Such as the base model's, which has no manifest."""
    tiny_llama().save_pretrained(tmp_path)
    read = dict(read_model(tmp_path))
    assert torch.equal(read["lm_head.weight"], tiny_llama().lm_head.weight)


def test_a_changed_byte_of_any_shard_is_found(tmp_path: Path) -> None:
    """Also in the last one."""
    folder = _write_tiny_llama(tmp_path, shard_bytes=20_000)
    digest = verify_policy(folder)
    shard = max(folder.glob("model-*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(PublicationFailed, match=f"v7/{shard.name} must have sha256"):
        verify_policy(folder)
    content[-1] ^= 1
    shard.write_bytes(content)
    assert verify_policy(folder) == digest


def test_a_missing_shard_is_found(tmp_path: Path) -> None:
    """By checking and by reading."""
    folder = _write_tiny_llama(tmp_path, shard_bytes=20_000)
    max(folder.glob("model-*.safetensors")).unlink()
    with pytest.raises(PublicationFailed, match="v7 cannot be read"):
        verify_policy(folder)
    with pytest.raises(PublicationFailed, match="the weights in v7 cannot be read"):
        list(read_model(folder))


def test_full_weights_are_no_adapter(tmp_path: Path) -> None:
    """Their folder has none of an adapter's files."""
    with pytest.raises(PublicationFailed, match="v7 cannot be read"):
        read_policy(_write_tiny_llama(tmp_path))


def test_a_folder_of_an_unknown_method_is_refused(tmp_path: Path) -> None:
    """A later release's, say; one that names no method is an adapter's."""
    folder, _ = _write(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "method": "prefix"}))
    with pytest.raises(PublicationFailed, match="method must be among adapter, full, got prefix"):
        read_metadata(folder)
    del manifest["method"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert read_metadata(folder) == METADATA
