"""One real node for the files that share it: vLLM's CPU engine with a tiny random Llama, an embedded Valkey, HTTP."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.secrets import new_key
from tests.distribution import SHARING_NODE
from tests.integration.node_process import NodeProcess
from tests.tiny_model import save_tiny_llama


@pytest.fixture(scope="session")
def shared_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node that is not started."""
    folder: Path = tmp_path_factory.mktemp("node")
    process = NodeProcess(folder, save_tiny_llama(folder / "model"), new_key("acme"))
    yield process
    process.kill()


@pytest.fixture
def node(shared_node: NodeProcess, request: pytest.FixtureRequest) -> NodeProcess:
    """A node that serves; each test leaves it serving. It ends with the last test that asks for it."""
    assert request.node.nodeid.partition("::")[0] in SHARING_NODE, "tests.distribution.SHARING_NODE must name this file"
    if not shared_node.running:
        shared_node.start()
    return shared_node


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """An engine that nobody asks any more holds memory and a share of a core from the next one."""
    process = getattr(item, "funcargs", {}).get("shared_node")
    if isinstance(process, NodeProcess) and "shared_node" not in getattr(nextitem, "fixturenames", ()):
        process.kill()
