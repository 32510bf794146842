"""Which process of a test run gets which tests, and in which order."""

from pathlib import Path

from tests.distribution import SHARING_NODE, in_order, scope

FILE = "tests/service/test_gpu.py"


def test_a_file_is_run_by_one_process() -> None:
    """Whatever the test and its parameters, in which `::` may occur too."""
    assert scope(f"{FILE}::test_a[x::y]") == scope(f"{FILE}::test_b") == FILE


def test_files_that_share_a_node_are_run_by_one_process() -> None:
    """A node of the session exists once in each process."""
    assert len({scope(f"{path}::test_a") for path in SHARING_NODE}) == 1
    assert scope("tests/integration/test_full.py::test_a") == "tests/integration/test_full.py"


def test_files_that_share_a_node_exist() -> None:
    """A file that was renamed is not forgotten here."""
    root = Path(__file__).parents[1]
    assert [path for path in SHARING_NODE if not (root / path).is_file()] == []


def test_engines_come_first() -> None:
    """The node's files by name, then the whole of the file with one engine test, then the rest as it came."""
    node, webhooks = (f"tests/integration/test_{name}.py" for name in ("node", "webhooks"))
    tests = [(f"{FILE}::test_a", False), ("tests/b.py::test_b", False), ("tests/b.py::test_c", True)]
    tests += [(f"{webhooks}::test_d", True), (f"{node}::test_e", True), (f"{FILE}::test_f", False)]
    assert in_order(tests) == [4, 3, 1, 2, 0, 5]
