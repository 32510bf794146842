"""The versions of every language's reward model, on disk: accepted and rejected ones, and which one is active.

<root>/de/v1/ v2/ …              immutable; manifest.json, report.json and the adapter (rewards.models.manifest)
<root>/de/active                 the version that judges
<root>/de/.training-<id>/        a training in progress; nothing of it is left after its end
"""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.errors import Conflict, ModelError, NotFound
from agent.files import move_durably
from rewards.models.manifest import (
    RewardManifest,
    active_version,
    language_folder,
    languages,
    read_manifest,
    set_active_version,
    verified_manifest,
    version_folder,
    written_versions,
)
from rewards.training.report import TrainingReport, read_report

NONE = 0
"""The version that stands for no reward model."""
_WORK_PREFIX = ".training-"


@dataclass(frozen=True, slots=True)
class ShelvedModel:
    """One version."""

    manifest: RewardManifest
    report: TrainingReport

    @property
    def version(self) -> int:
        return self.manifest.version

    @property
    def accepted(self) -> bool:
        """Whether it beat the version before it, so that it may be active."""
        return self.report.verdict.accepted


@dataclass(frozen=True, slots=True)
class LanguageModels:
    """A language's reward models."""

    language: str
    active: int | None
    """The version that judges; None when none does."""
    versions: tuple[ShelvedModel, ...]
    """Newest first."""

    def find(self, version: int) -> ShelvedModel:
        """Raises NotFound."""
        for model in self.versions:
            if model.version == version:
                return model
        raise NotFound(f"there is no reward model {version} of {self.language}")

    @property
    def active_accuracy(self) -> float | None:
        """Held-out accuracy of the active version, when it was measured."""
        return None if self.active is None else self.find(self.active).manifest.held_out_accuracy


class ModelShelf:
    """Reads and writes the folders. Every method raises ModelError when the disk refuses or a record is damaged."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def languages(self) -> Sequence[str]:
        """Languages that had a version or a training, in order."""
        return languages(self.root)

    def models(self, language: str) -> LanguageModels:
        """A language's versions; none of a language that has none."""
        versions = reversed(written_versions(self.root, language))
        return LanguageModels(
            language, active_version(self.root, language), tuple(self._shelved(language, number) for number in versions)
        )

    def next_version(self, language: str) -> int:
        """The number of the version that comes next; none is given twice."""
        return max(written_versions(self.root, language), default=NONE) + 1

    def active_folder(self, language: str) -> Path | None:
        """Folder of the version that judges; None when none does."""
        version = active_version(self.root, language)
        return version_folder(self.root, language, version) if version is not None else None

    def put(self, language: str, version: int, written: Path) -> None:
        """Take a written folder in as a version, whole or not at all, also after a power cut."""
        verified_manifest(written)
        try:
            move_durably(written, version_folder(self.root, language, version))
        except OSError as error:
            raise ModelError(f"reward model {version} of {language} cannot be kept: {error.strerror}") from error

    def check_accepted(self, language: str, version: int) -> None:
        """Pass when a version may be active: it is there, undamaged, and was accepted.

        Raises:
            NotFound: there is no such version.
            Conflict: the gate rejected it.
        """
        model = self.models(language).find(version)
        if not model.accepted:
            reason = model.report.verdict.reason
            raise Conflict(f"only an accepted reward model can be active, and {version} was rejected: {reason}")
        verified_manifest(version_folder(self.root, language, version))

    def point(self, language: str, version: int | None) -> None:
        """Make a version the active one, or none."""
        set_active_version(self.root, language, version)

    def work_folder(self, language: str, training_id: str) -> Path:
        """A new, private folder for a training."""
        folder = language_folder(self.root, language) / f"{_WORK_PREFIX}{training_id}"
        try:
            folder.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise ModelError(f"the training {training_id} has no folder to work in: {error.strerror}") from error
        return folder

    def clear(self) -> None:
        """Remove what trainings had left that their node did not outlive."""
        remove(path for language in self.languages() for path in (self.root / language).glob(f"{_WORK_PREFIX}*"))

    def _shelved(self, language: str, version: int) -> ShelvedModel:
        folder = version_folder(self.root, language, version)
        return ShelvedModel(read_manifest(folder), read_report(folder))


def remove(folders: Iterable[Path]) -> None:
    """Remove folders; what cannot be removed stays until the node starts again."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
