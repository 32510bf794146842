"""Settings for every test: no model hub is asked, and vLLM reports no usage. How tests share several processes."""

import os
from collections.abc import Generator

import pytest

from tests.distribution import in_order, scheduler
from tests.turnstile import entered

# Set before any test imports transformers or vLLM, which read them once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["VLLM_NO_USAGE_STATS"] = "1"
os.environ["DO_NOT_TRACK"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = in_order([(item.nodeid, item.get_closest_marker("engine") is not None) for item in items])
    items[:] = [items[position] for position in order]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    return scheduler(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Outermost: what a test waits for its turn is no part of its timeout."""
    if not hasattr(item.config, "workerinput"):
        return (yield)
    with entered(alone=item.get_closest_marker("alone") is not None):
        return (yield)
