"""Which process of `pytest -n 2` runs what, and in which order.

    integration files that share a node ─► other files with engine tests ─► all others
    one file (or those that share the node) ─► one process, as soon as it has little left to do

Engines come first: each of their files takes as long as dozens of others, which then fill what is left. Fixtures of a
module and of the session's node are made once, because nothing that uses them is split. At most one engine lives in
each process at a time.
"""

from collections.abc import Sequence

import pytest

INTEGRATION = "tests/integration"
SHARING_NODE = frozenset(f"{INTEGRATION}/test_{name}.py" for name in ("jobs", "node", "openai", "webhooks"))
"""Files of the fixture ``node``, which refuses all others."""


def scope(nodeid: str) -> str:
    """What is run by one process as a whole: the test's file, or the folder of the files that share a node."""
    path = nodeid.partition("::")[0]
    return INTEGRATION if path in SHARING_NODE else path


def in_order(tests: Sequence[tuple[str, bool]]) -> list[int]:
    """Positions of ``tests`` with the longest scopes first; within a scope, and among scopes of one kind, as they came.

    Files that share a node go by name, however pytest was asked: the first version of tests/integration/test_node.py is
    the base model, and tests/integration/test_webhooks.py publishes another.

    Args:
        tests: each test's id, and whether it starts an engine.
    """
    scopes = [scope(nodeid) for nodeid, _ in tests]
    ranks = {name: 0 if name == INTEGRATION else 1 for name, (_, engine) in zip(scopes, tests, strict=True) if engine}
    files = [nodeid.partition("::")[0] for nodeid, _ in tests]

    def place(position: int) -> tuple[int, str]:
        return ranks.get(scopes[position], 2), files[position] if files[position] in SHARING_NODE else ""

    return sorted(range(len(tests)), key=place)


def scheduler(config: pytest.Config, log: object) -> object:
    """xdist's scheduler of whole scopes, with ours."""
    from xdist.scheduler import LoadScopeScheduling  # only where tests are distributed

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # xdist ships no annotations
        def _split_scope(self, nodeid: str) -> str:
            return scope(nodeid)

    return ByFile(config, log)
