"""The command line: what is printed, where, and with which exit status."""

import json
import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.cli import app
from service.config_file import load
from service.config_text import reference
from service.secrets import hash_key

RUNNER = CliRunner()
KEY = re.compile(r"clq_[a-z0-9_-]+_[A-Za-z0-9_-]{43}")


def test_init_writes_a_valid_file_and_prints_the_key_once(tmp_path: Path) -> None:
    """The file holds the key's hash only; the key itself is on stdout and nowhere else."""
    file = tmp_path / "node.toml"
    result = RUNNER.invoke(app, ["init", str(file), "--tenant", "acme", "--language", "pl", "--language", "de"])
    assert result.exit_code == 0
    (key,) = KEY.findall(result.stdout)
    (tenant,) = load(file).tenants
    assert (tenant.id, tenant.key_hashes, list(tenant.languages)) == ("acme", (hash_key(key),), ["pl", "de"])
    assert key not in file.read_text()


def test_init_never_overwrites(tmp_path: Path) -> None:
    """A file that is there is left as it is, and no key is shown."""
    file = tmp_path / "node.toml"
    file.write_text("# mine")
    result = RUNNER.invoke(app, ["init", str(file)])
    assert result.exit_code == 2
    assert result.stderr == f"error: {file}: exists already and is left as it is; name another file\n"
    assert not KEY.search(result.output)
    assert file.read_text() == "# mine"


def test_a_language_that_is_named_twice_is_written_once(tmp_path: Path) -> None:
    """The file is valid."""
    file = tmp_path / "node.toml"
    result = RUNNER.invoke(app, ["init", str(file), "--language", "pl", "--language", "pl"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert file.read_text().count("[tenants.languages.pl]") == 1


@pytest.mark.parametrize("language", ["qq", "Polish", "pl]"])
def test_init_refuses_a_language_that_cannot_be_checked(language: str, tmp_path: Path) -> None:
    """A first configuration is valid or not written at all."""
    result = RUNNER.invoke(app, ["init", str(tmp_path / "node.toml"), "--language", language])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: tenants[0].languages.")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["key", "new", "ACME"], ["init", "x.toml", "--tenant", "a b"]])
def test_bad_tenant_name_is_refused(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenant's name that the configuration would refuse gets no key and no file."""
    monkeypatch.chdir(tmp_path)
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: tenant: must be lower-case letters")
    assert list(tmp_path.iterdir()) == []


def test_key_new_prints_a_key_with_its_hash() -> None:
    """The hash on the screen is the hash of the key on the screen."""
    result = RUNNER.invoke(app, ["key", "new", "acme"])
    (key,) = KEY.findall(result.stdout)
    assert f'"{hash_key(key)}"' in result.stdout
    assert key.startswith("clq_acme_")


def test_config_check_accepts_what_init_wrote(tmp_path: Path) -> None:
    """A valid file is said to be valid, with the tenants and languages that it has."""
    file = tmp_path / "node.toml"
    RUNNER.invoke(app, ["init", str(file), "--language", "pl", "--language", "ja"])
    result = RUNNER.invoke(app, ["config", "check", "--config", str(file)])
    assert (result.exit_code, result.stdout) == (0, f"{file}: valid. Tenants: 1. Languages: ja, pl.\n")


def test_config_check_reports_every_problem_without_a_traceback(tmp_path: Path) -> None:
    """A broken file gives one line for each problem on stderr, exit status 2, and nothing on stdout."""
    file = tmp_path / "node.toml"
    file.write_text("[engine]\nmax_num_seq = 4\nmax_num_seqs = 0\n")
    result = RUNNER.invoke(app, ["config", "check", "-c", str(file)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "error: node.toml breaks 2 rules:\n"
        "  engine.max_num_seqs: must be at least 1, got 0\n"
        "  engine.max_num_seq: unknown key; did you mean engine.max_num_seqs?\n"
    )


def test_config_check_knows_the_detectors_languages(tmp_path: Path) -> None:
    """A language that the detector cannot tell is refused when it is configured, not when it is asked for."""
    file = tmp_path / "node.toml"
    file.write_text('[[tenants]]\nid = "acme"\n[tenants.languages.qq]\n')
    result = RUNNER.invoke(app, ["config", "check", "--config", str(file)])
    assert result.exit_code == 2
    assert "tenants[0].languages.qq: must be a language that the detector knows" in result.stderr


def test_config_show_masks_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The effective tree names secrets that are set, and shows none."""
    monkeypatch.setenv("COLOQ_STORE_PASSWORD", "hunter2")
    file = tmp_path / "node.toml"
    RUNNER.invoke(app, ["init", str(file)])
    result = RUNNER.invoke(app, ["config", "show", "--config", str(file)])
    assert result.exit_code == 0
    assert "# COLOQ_STORE_PASSWORD: set\n" in result.stdout
    assert "hunter2" not in result.output
    assert load(file).tenants[0].key_hashes[0] not in result.stdout
    assert "max_num_seqs = 16\n" in result.stdout


def test_missing_configuration_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file, in an empty folder, the message names the command that writes one."""
    monkeypatch.chdir(tmp_path)
    result = RUNNER.invoke(app, ["config", "show"])
    assert (result.exit_code, result.stderr) == (2, "error: node.toml: no such file; `coloq init` writes one\n")


def test_config_reference_prints_the_table() -> None:
    """The reference on the screen is the one of the README."""
    assert RUNNER.invoke(app, ["config", "reference"]).stdout == reference()


def test_help_loads_nothing_heavy() -> None:
    """Help answers at once: the engine, the web framework, torch and the store's client are not even imported."""
    program = (
        "import sys; from service.cli import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'vllm', 'fastapi', 'transformers', 'redis', 'pydantic'} & sys.modules.keys()\n"
        "print('heavy:', sorted(heavy))"
    )
    started = time.monotonic()
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert time.monotonic() - started < 5
    assert "heavy: []" in output
    for command in ("serve", "plan", "init", "config", "key", "model", "tune", "policies"):
        assert command in output


@pytest.mark.parametrize(("group", "command"), [("model", "list"), ("tune", "start"), ("policies", "activate")])
def test_groups_that_are_loaded_late_have_their_commands(group: str, command: str) -> None:
    """A group that is imported only when it is asked for lists its commands and runs them."""
    assert command in RUNNER.invoke(app, [group, "--help"]).stdout
    result = RUNNER.invoke(app, [group, command, "--help"])
    assert result.exit_code == 0
    assert f"{group} {command}" in result.stdout


def test_version_is_the_distributions() -> None:
    """`--version` needs no command and prints the installed version."""
    result = RUNNER.invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"coloq {metadata.version('coloq')}\n")


def test_openapi_is_printed_as_json() -> None:
    """The document that a node serves, without a node: OpenAPI 3.1 with every route."""
    result = RUNNER.invoke(app, ["openapi"])
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["openapi"].startswith("3.1")
    assert {"/v1/content", "/v1/chat/completions", "/v1/models/{model}"} <= document["paths"].keys()
