"""A version of a language's reward model on disk: an adapter as PEFT saves it, and what it is in `manifest.json`.

    <root>/de/v3/adapter_model.safetensors     LoRA and the score head (modules_to_save)
                 adapter_config.json
                 manifest.json                 sha256 of every other file; written last
    <root>/de/active                           the version in use, as a number; 0 or no file: none
    <root>/de/calibrations.json                of off-the-shelf scorers, by their name

A version is immutable once written; its folder appears by rename. ``root`` is `rewards/` in the node's data folder. No
pickle: weights are safetensors or refused.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from agent.errors import ModelError
from agent.files import replace_durably, sha256_of
from rewards.models.calibration import Calibration

WEIGHTS, ADAPTER_CONFIG, MANIFEST, ACTIVE, CALIBRATIONS = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "manifest.json",
    "active",
    "calibrations.json",
)
_PLAIN_NAME = re.compile(r"[\w][\w.-]*", re.ASCII)
_LANGUAGE = re.compile(r"[a-z]{2,3}")


@dataclass(frozen=True, slots=True)
class RewardManifest:
    """What one version is."""

    version: int
    language: str
    """ISO 639-1 code."""
    backbone: str
    """Hugging Face id or folder of the backbone, as it was configured."""
    created_at: str
    """ISO 8601, UTC."""
    num_pairs: int
    """Preference pairs that it was trained on."""
    held_out_accuracy: float | None
    """Share of held-out pairs whose chosen reply scores higher; None when it was not measured."""
    calibration: Calibration
    files: Mapping[str, str]
    """sha256 by file name, of every file but the manifest."""


_records = TypeAdapter(RewardManifest)
_calibrations = TypeAdapter(dict[str, Calibration])


def version_folder(root: Path, language: str, version: int) -> Path:
    """Where a version lives. Raises ValueError for what is no language code."""
    return language_folder(root, language) / f"v{version}"


def language_folder(root: Path, language: str) -> Path:
    """Where a language's versions live. Raises ValueError for what is no language code."""
    if not _LANGUAGE.fullmatch(language):
        raise ValueError(f"language must be an ISO 639 code, got {language!r}")
    return root / language


def languages(root: Path) -> list[str]:
    """Languages that have a folder, in order."""
    return sorted(path.name for path in root.glob("*") if path.is_dir() and _LANGUAGE.fullmatch(path.name))


def written_versions(root: Path, language: str) -> list[int]:
    """Versions that were written, ascending."""
    names = [path.name for path in language_folder(root, language).glob("v*") if path.is_dir()]
    return sorted(int(name[1:]) for name in names if name[1:].isdigit())


def active_version(root: Path, language: str) -> int | None:
    """The version in use; None when there is none.

    Raises:
        ModelError: the pointer cannot be read or is no number.
    """
    try:
        text = (language_folder(root, language) / ACTIVE).read_text().strip()
        return int(text) or None
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(f"the pointer to the active reward model of {language} cannot be read: {error}") from error


def set_active_version(root: Path, language: str, version: int | None) -> None:
    """Use another version from now on; None uses none. A reader finds the old pointer or the new one.

    Raises:
        ModelError: there is no such version, or the disk refused.
    """
    folder = language_folder(root, language)
    if version is not None and not (folder / f"v{version}" / MANIFEST).is_file():
        raise ModelError(f"reward model v{version} of {language} is not there")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_durably(folder / ACTIVE, f"{version or 0}\n")
    except OSError as error:
        raise ModelError(f"the pointer to the active reward model of {language} cannot be written: {error}") from error


def read_calibrations(root: Path, language: str) -> dict[str, Calibration]:
    """Calibrations of off-the-shelf scorers for a language, by the scorer's name; none where there is no file.

    Raises:
        ModelError: the file is damaged.
    """
    try:
        return _calibrations.validate_json((language_folder(root, language) / CALIBRATIONS).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        raise ModelError(f"the calibrations of reward models of {language} cannot be read: {error}") from error


def write_calibration(root: Path, language: str, scorer: str, calibration: Calibration) -> None:
    """Keep one calibration beside the others; one process writes at a time.

    Raises:
        ModelError: the file is damaged, or the disk refused.
    """
    folder = language_folder(root, language)
    calibrations = {**read_calibrations(root, language), scorer: calibration}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_durably(folder / CALIBRATIONS, _calibrations.dump_json(calibrations, indent=2))
    except OSError as error:
        raise ModelError(f"the calibrations of reward models of {language} cannot be written: {error}") from error


def write_manifest(folder: Path, manifest: RewardManifest) -> RewardManifest:
    """Write the manifest into a folder that holds all other files, with their digests; returns it as written.

    ``manifest.files`` is replaced. Neither synced nor renamed: the folder is its writer's until then.
    """
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    written = replace(manifest, files=files)
    (folder / MANIFEST).write_bytes(_records.dump_json(written, indent=2))
    return written


def read_manifest(folder: Path) -> RewardManifest:
    """What a written version says it is; no digest is checked.

    Raises:
        ModelError: there is no readable manifest.
    """
    try:
        return _records.validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValidationError) as error:
        reason = f"{error.error_count()} fields are wrong" if isinstance(error, ValidationError) else error
        raise ModelError(f"reward model {_name(folder)} has no readable manifest: {reason}") from error


def verified_manifest(folder: Path) -> RewardManifest:
    """A version's manifest, once every file that it names was found to have its digest.

    Raises:
        ModelError: a file is missing or differs, the adapter's files are not named, or there is no readable manifest.
    """
    manifest = read_manifest(folder)
    for name in (WEIGHTS, ADAPTER_CONFIG):
        if name not in manifest.files:
            raise ModelError(f"reward model {_name(folder)} must hold {name}, its manifest does not name it")
    for name, expected in manifest.files.items():
        if not _PLAIN_NAME.fullmatch(name):
            raise ModelError(f"reward model {_name(folder)}: a file's name must be plain, got {name!r}")
        try:
            found = sha256_of(folder / name)
        except OSError as error:
            raise ModelError(f"reward model {_name(folder)}/{name} cannot be read: {error}") from error
        if found != expected:
            raise ModelError(
                f"reward model {_name(folder)}/{name} must have sha256 {expected[:12]}…, got {found[:12]}…"
            )
    return manifest


def _name(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"
