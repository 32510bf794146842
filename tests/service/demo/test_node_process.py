"""The demo's node as a real child process; its engine is never reached here."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from transformers import LlamaConfig

from service.demo.failure import DemoFailed
from service.demo.node_process import running_node


def start(
    folder: Path, configuration: Callable[[str], str], announce: Callable[[str], None] = lambda line: None
) -> None:
    with running_node(folder, folder / "node.log", configuration, announce):
        raise AssertionError("it must not become ready")


def test_a_node_that_does_not_start_fails_with_its_own_words(tmp_path: Path) -> None:
    """The end of its log is in the message; the key's hash stood in its configuration, the key nowhere."""
    hashes: list[str] = []

    def broken(key_hash: str) -> str:
        hashes.append(key_hash)
        return "nonsense = 1\n"

    with pytest.raises(DemoFailed, match=r"(?s)ended with status 2 before it was ready.*nonsense: unknown key"):
        start(tmp_path, broken)
    assert hashes[0].startswith("sha256:")


def test_a_node_that_is_interrupted_while_it_starts_is_gone(tmp_path: Path) -> None:
    """Ctrl-C behind the memory plan, while the node imports vLLM: it comes through once no process is left."""
    LlamaConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=2).save_pretrained(tmp_path)
    said: list[str] = []

    def interrupt(line: str) -> None:
        said.append(line)
        if line == "Starting the engine …":
            raise KeyboardInterrupt

    def configuration(key_hash: str) -> str:
        return f'data_dir = "data"\nserver.port = 0\nengine.model = "{tmp_path}"\n'

    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, configuration, interrupt)
    assert said[0].startswith("Memory plan")
    assert commands_with(str(tmp_path)) == []


def commands_with(part: str) -> list[bytes]:
    """Command lines of running processes that hold ``part``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            command = path.read_bytes()
            found += [command] if part.encode() in command else []
    return found
