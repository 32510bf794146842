"""`coloq plan`: what is printed, as a table and as JSON, and with which exit status."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from service.cli import app
from service.gpu import NAMED_GPUS
from service.named_shapes import NAMED_SHAPES
from tests.tiny_model import save_tiny_llama

RUNNER = CliRunner(env={"COLUMNS": "120"})
GIB = 2**30


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where no node.toml lies."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return RUNNER.invoke(app, ["plan", *arguments])


def record(arguments: Sequence[str], *, status: int = 0) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == status, result.output
    values: dict[str, Any] = json.loads(result.stdout)
    return values


def test_the_table_lists_every_part_and_what_the_cache_holds() -> None:
    """1.5B on an H100: weights 2.88 GiB, and 0.9 of 79.1 GiB taken in all."""
    result = run("--model", "qwen2.5-1.5b", "--gpu", "h100-80gb")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "Memory plan: qwen2.5-1.5b (1,543,714,304 parameters) on h100-80gb, 79.1 GiB"
    assert any(line.split() == "weights 2.88 1,543,714,304 parameters × 2 B".split() for line in lines)
    assert any(
        line.startswith("total") and "71.19 of 71.19 that the node may take" in " ".join(line.split()) for line in lines
    )
    order = [line.split("  ")[0] for line in lines]
    assert order.index("weights") < order.index("kv cache") < order.index("masters and moments") < order.index("total")
    assert lines[-1].startswith("The KV cache holds ")
    assert lines[-1].endswith(" sequences of 1,024 tokens at one time.")


def test_json_holds_the_plan_in_bytes() -> None:
    """The lines add up to what is used, and their order is that of the placement."""
    plan = record(["--model", "qwen2.5-1.5b", "--gpu", "h100-80gb"])
    assert (plan["model"], plan["device"], plan["fits"], plan["advice"]) == ("qwen2.5-1.5b", "h100-80gb", True, [])
    sizes = {line["name"]: line["bytes"] for line in plan["lines"]}
    assert sizes["weights"] == 3_087_428_608
    assert plan["kv_cache"]["bytes_per_token"] == 28_672
    assert sum(sizes.values()) == plan["used_bytes"] <= plan["limit_bytes"] == int(0.9 * int(79.1 * GIB))
    assert [line["name"] for line in plan["lines"]][-1] == "masters_and_moments"


def test_a_plan_that_does_not_fit_is_shown_and_refused() -> None:
    """Exit status 2, the table on stdout, reason and advice on stderr."""
    result = run("--model", "qwen2.5-7b", "--gpu", "24")
    assert result.exit_code == 2
    assert "too much" in result.stdout
    assert result.stderr.startswith("error: tuning.microbatch_tokens: the plan needs ")
    assert "cuda.memory_fraction = 0.9 allows on GPU (24.0 GiB)" in result.stderr
    assert re.search(r"^  tuning\.microbatch_tokens = \d+ \(now unset\) and ", result.stderr, re.MULTILINE)


def test_the_advice_is_in_the_json_too() -> None:
    """Each entry is a set of keys and values that is enough; the status is 2 all the same."""
    plan = record(["--model", "qwen2.5-7b", "--gpu", "24"], status=2)
    assert plan["fits"] is False
    assert plan["excess_bytes"] == plan["used_bytes"] - plan["limit_bytes"] > 0
    assert {"tuning.microbatch_tokens", "engine.max_model_len"} in [values.keys() for values in plan["advice"]]


@pytest.mark.parametrize("size_gib", ["24", "26"])
def test_the_advice_works_when_it_is_written_into_the_file(empty_folder: Path, size_gib: str) -> None:
    """What was refused fits with the advised values set: on 24 GiB and on 26."""
    for values in record(["--model", "qwen2.5-7b", "--gpu", size_gib], status=2)["advice"]:
        file = empty_folder / "node.toml"
        tables = [key.rpartition(".") for key in values]
        text = "\n".join(
            f"[{section}]\n{name} = {json.dumps(values[f'{section}.{name}'])}" for section, _, name in tables
        )
        file.write_text(text)
        assert record(["--config", str(file), "--model", "qwen2.5-7b", "--gpu", size_gib])["fits"] is True


def test_the_configuration_decides(empty_folder: Path) -> None:
    """node.toml of the folder is taken when no file is named, and --model goes before its model."""
    (empty_folder / "node.toml").write_text('[engine]\nmodel = "qwen2.5-1.5b"\nkv_cache_gib = 2.0\n')
    plan = record(["--gpu", "h200-141gb"])
    assert (plan["model"], plan["lines"][1]["bytes"]) == ("qwen2.5-1.5b", 2 * GIB)
    other = record(["--gpu", "h200-141gb", "--model", "qwen2.5-7b"])
    assert (other["model"], other["lines"][1]["bytes"]) == ("qwen2.5-7b", 2 * GIB)


def test_a_named_file_must_be_there() -> None:
    """Unlike node.toml, which may be missing."""
    result = run("--config", "other.toml", "--gpu", "24")
    assert (result.exit_code, result.stderr) == (2, "error: other.toml: no such file; `coloq init` writes one\n")


def test_a_model_folder_is_planned_by_its_configuration(empty_folder: Path) -> None:
    """Any Hugging Face configuration on disk."""
    folder = save_tiny_llama(empty_folder / "tiny")
    assert record(["--model", str(folder), "--gpu", "4"])["fits"] is True


@pytest.mark.parametrize(
    ("shape", "card"),
    [*((shape, "h100-80gb") for shape in NAMED_SHAPES), *(("qwen2.5-7b", card) for card in NAMED_GPUS)],
)
def test_every_shape_can_be_planned_on_every_card(shape: str, card: str) -> None:
    """It fits, or is refused with status 2; never an error without a plan."""
    result = run("--model", shape, "--gpu", card, "--json")
    assert result.exit_code == (0 if json.loads(result.stdout)["fits"] else 2)


def test_a_cpu_is_planned_and_never_refused() -> None:
    """40 TiB of cache are the operator's own affair; the device is the CPU where vLLM's build for CPUs is installed."""
    Path("node.toml").write_text('[engine]\nmodel = "smollm2-135m-instruct"\nkv_cache_gib = 40960.0\n')
    plan = record([])
    if plan["device"] != "CPU":
        pytest.skip("this machine's engine has a GPU")
    assert (plan["limit_bytes"], plan["fits"], plan["excess_bytes"]) == (None, True, 0)
    assert "of main memory, not checked" in run().stdout


def test_unknown_gpus_and_models_are_refused() -> None:
    """By the option or the key that named them."""
    assert run("--gpu", "potato").stderr.startswith("error: --gpu: must be one of h100-80gb, ")
    result = run("--gpu", "24", "--model", "./nowhere/at-all")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: engine.model: must be a folder with config.json")
