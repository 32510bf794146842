"""`coloq demo`: start a node, play the scenario, write the report, stop everything.

    serve (child) ─► scenario over HTTP ─► node stopped, its process tree verified gone ─► data removed ─► report.html

Ctrl-C and SIGTERM end it at any time, in that same order.
"""

import asyncio
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from rich.console import Console

from service.data_dir import locked_data_dir
from service.demo.briefs import DemoBrief, languages_of, load_briefs
from service.demo.configuration import REPLY_TOKENS, configuration
from service.demo.interrupts import sigterm_as_ctrl_c
from service.demo.node_process import NodeAccess, running_node
from service.demo.report import render_report
from service.demo.results import DemoResults
from service.demo.scenario import Scenario
from service.demo.screen import Screen
from service.demo.tenant_client import Clock, TenantClient
from service.http.inspection_client import InspectionClient
from service.http.tuning_schema import RunBody

LOG_NAME = "node.log"
REPORT_NAME = "report.html"
NUM_STEPS = 8
_NODE_FOLDER = "node"


def play_demo(folder: Path, *, seed: int, console: Console) -> Path:
    """Play the whole demo; returns the report's path. Call it from the main thread.

    Args:
        folder: gets the report and the node's log, and holds the node's data while it runs.
        seed: of the tuning run.

    Raises:
        ColoqError: a stage failed.
        KeyboardInterrupt: Ctrl-C or SIGTERM; nothing is left running.
    """
    screen = Screen(console, Clock())
    with sigterm_as_ctrl_c(), locked_data_dir(folder):
        with _emptied(folder / _NODE_FOLDER) as node_folder:
            results = _play(node_folder, folder / LOG_NAME, seed, screen)
        report = folder / REPORT_NAME
        report.write_text(render_report(results), encoding="utf-8")
    screen.finish(results, report)
    return report


def _play(node_folder: Path, log_path: Path, seed: int, screen: Screen) -> DemoResults:
    """Start the node, play the scenario, stop the node."""
    briefs = load_briefs()
    with ExitStack() as stack:
        with screen.stage("Start a node with the embedded model, on the CPU"), screen.busy() as status:
            configured = partial(configuration, languages=languages_of(briefs))
            node = stack.enter_context(running_node(node_folder, log_path, configured, status.update))
            screen.say(f"it listens on {node.url}; its log is {log_path}")
        results = asyncio.run(_scenario(node, briefs, seed, screen))
        with screen.stage("Stop the node"):
            stack.close()
            screen.say("no process of it is left")
        return results


async def _scenario(node: NodeAccess, briefs: Sequence[DemoBrief], seed: int, screen: Screen) -> DemoResults:
    tenant = TenantClient(node.url, node.tenant_key, screen.clock, max_tokens=REPLY_TOKENS)
    async with tenant:
        with InspectionClient(node.url, node.admin_key) as admin:
            scenario = Scenario(tenant, admin, screen, screen.clock)
            return await scenario.play(briefs, RunBody(steps=NUM_STEPS, gate=True, seed=seed))


@contextmanager
def _emptied(folder: Path) -> Iterator[Path]:
    """An empty folder, removed at the end; what a killed demo left in it goes first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
