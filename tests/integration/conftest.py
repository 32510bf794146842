"""One real node for all integration tests: vLLM's CPU engine with a tiny random Llama, an embedded Valkey, HTTP."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.secrets import new_key
from tests.integration.node_process import NodeProcess
from tests.tiny_model import save_tiny_llama


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node that serves; each test leaves it serving."""
    folder: Path = tmp_path_factory.mktemp("node")
    process = NodeProcess(folder, save_tiny_llama(folder / "model"), new_key("acme"))
    process.start()
    yield process
    process.kill()
