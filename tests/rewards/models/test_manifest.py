"""Versions of reward models on disk: what a manifest says, digests, the pointer to the active one."""

import json
from pathlib import Path

import pytest

from agent.errors import ModelError
from rewards.models.calibration import Calibration, LengthTrend
from rewards.models.manifest import (
    ADAPTER_CONFIG,
    MANIFEST,
    WEIGHTS,
    RewardManifest,
    active_version,
    languages,
    read_manifest,
    set_active_version,
    verified_manifest,
    version_folder,
    write_manifest,
    written_versions,
)

CALIBRATION = Calibration(0.5, 2.0, {"create": LengthTrend(0.25, 3.0)})
MANIFEST_OF_DE = RewardManifest(3, "de", "org/backbone", "2026-01-01T00:00:00Z", 120, 0.75, CALIBRATION, {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = version_folder(tmp_path, "de", 3)
    folder.mkdir(parents=True)
    (folder / WEIGHTS).write_bytes(b"abc")
    (folder / ADAPTER_CONFIG).write_text("{}")
    write_manifest(folder, MANIFEST_OF_DE)
    return folder


def test_a_manifest_is_read_as_it_was_written(folder: Path) -> None:
    """Numbers and length trends come back, with sha256("abc") and sha256("{}") as digests of the files."""
    manifest = verified_manifest(folder)
    assert manifest.calibration == CALIBRATION
    assert (manifest.version, manifest.language, manifest.num_pairs, manifest.held_out_accuracy) == (3, "de", 120, 0.75)
    assert manifest.files == {
        WEIGHTS: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ADAPTER_CONFIG: "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    }


def test_the_stored_form_is_the_agreed_one(folder: Path) -> None:
    """Whoever writes a version by other means has this to keep to."""
    stored = json.loads((folder / MANIFEST).read_text())
    assert stored["calibration"] == {
        "center": 0.5,
        "scale": 2.0,
        "length": {"create": {"slope": 0.25, "mean_log_words": 3.0}},
    }
    assert stored.keys() == {
        "version",
        "language",
        "backbone",
        "created_at",
        "num_pairs",
        "held_out_accuracy",
        "calibration",
        "files",
    }


@pytest.mark.parametrize("name", [WEIGHTS, ADAPTER_CONFIG])
def test_a_changed_or_missing_file_is_found(folder: Path, name: str) -> None:
    """One other byte is enough; the file is named."""
    (folder / name).write_bytes(b"abd")
    with pytest.raises(ModelError, match=f"de/v3/{name} must have sha256"):
        verified_manifest(folder)
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"de/v3/{name} cannot be read"):
        verified_manifest(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": {WEIGHTS: "0"}}, f"must hold {ADAPTER_CONFIG}"),
        ({"files": {WEIGHTS: "0", ADAPTER_CONFIG: "0", "../x": "0"}}, "must have sha256"),
        ({"calibration": {"center": 0.0, "scale": 0.0, "length": {}}}, "no readable manifest"),
        ({"calibration": {"center": "nan", "scale": 1.0, "length": {}}}, "no readable manifest"),
        ({"version": None}, "no readable manifest"),
    ],
)
def test_a_wrong_manifest_is_refused(folder: Path, change: dict[str, object], message: str) -> None:
    """Files that nobody vouches for, scales that divide by nothing, and fields that are missing."""
    stored = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(stored | change))
    with pytest.raises(ModelError, match=message):
        verified_manifest(folder)


def test_a_manifest_reaches_no_file_outside_its_folder(folder: Path) -> None:
    """A name with a path in it is refused before anything is read."""
    stored = json.loads((folder / MANIFEST).read_text())
    stored["files"] = {"../../secret": "0", **stored["files"]}
    (folder / MANIFEST).write_text(json.dumps(stored))
    with pytest.raises(ModelError, match="a file's name must be plain"):
        verified_manifest(folder)


def test_a_folder_without_a_manifest_is_no_version(tmp_path: Path) -> None:
    """What was never finished is not read."""
    with pytest.raises(ModelError, match="de/v1 has no readable manifest"):
        read_manifest(version_folder(tmp_path, "de", 1))


def test_the_pointer_names_a_written_version_or_none(tmp_path: Path, folder: Path) -> None:
    """Without a file, and with 0, no version is active; one that was never written cannot be."""
    assert active_version(tmp_path, "de") is None
    set_active_version(tmp_path, "de", 3)
    assert active_version(tmp_path, "de") == 3
    assert (tmp_path / "de" / "active").read_text() == "3\n"
    with pytest.raises(ModelError, match="v4 of de is not there"):
        set_active_version(tmp_path, "de", 4)
    set_active_version(tmp_path, "de", None)
    assert active_version(tmp_path, "de") is None
    assert sorted(path.name for path in (tmp_path / "de").iterdir()) == ["active", "v3"]


def test_a_damaged_pointer_is_an_error(tmp_path: Path, folder: Path) -> None:
    """It is not taken for no pointer: replies would be scored by nobody without anyone noticing."""
    (tmp_path / "de" / "active").write_text("three")
    with pytest.raises(ModelError, match="pointer to the active reward model of de"):
        active_version(tmp_path, "de")


def test_versions_and_languages_are_listed(tmp_path: Path, folder: Path) -> None:
    """Half-written folders and files beside them are none."""
    (tmp_path / "de" / ".v4.partial").mkdir()
    (tmp_path / "de" / "v10").mkdir()
    (tmp_path / "README").touch()
    assert written_versions(tmp_path, "de") == [3, 10]
    assert written_versions(tmp_path, "pl") == []
    assert languages(tmp_path) == ["de"]


def test_a_language_is_a_code_and_no_path() -> None:
    """Languages come from requests, too."""
    with pytest.raises(ValueError, match=r"must be an ISO 639 code, got '\.\./de'"):
        version_folder(Path(), "../de", 1)
