"""The runbook names only what there is: metrics, configuration keys and log events."""

import re
from pathlib import Path

from service.canary.metrics import CanaryMetrics
from service.config_tree import keys
from service.telemetry import Metrics

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "deploy" / "RUNBOOK.md").read_text(encoding="utf-8")
CODE = re.findall(r"`([^`\n]+)`", TEXT)


def shown_metrics() -> set[str]:
    """All metrics of a node."""
    metrics = Metrics()
    CanaryMetrics(metrics.registry)
    return {line.split(" ")[2] for line in metrics.render().splitlines() if line.startswith("# HELP")}


def test_every_metric_of_the_runbook_exists() -> None:
    """A renamed metric takes its rows in the runbook along."""
    named = {match for span in CODE for match in re.findall(r"\bcoloq_[a-z0-9_]+", span)}
    assert named - shown_metrics() == set()


def test_the_runbook_explains_every_metric_of_the_controller() -> None:
    """What the controller shows can be read with the runbook alone."""
    shown = shown_metrics()
    prefixes = ("coloq_controller_", "coloq_slo_", "coloq_live_", "coloq_train_", "coloq_engine_step")
    ours = {name for name in shown if name.startswith(prefixes) and not name.endswith("_created")}
    assert ours - set(re.findall(r"coloq_[a-z0-9_]+", TEXT)) == set()


def test_every_key_of_the_runbook_exists() -> None:
    """What it says to turn can be turned."""
    known = {key.path for key in keys()}
    sections = {path.partition(".")[0] for path in known if "." in path and "[" not in path}
    dotted = r"[a-z]+(\.[a-z0-9_]+)+"
    named = {span for span in CODE if re.fullmatch(dotted, span) and span.partition(".")[0] in sections}
    assert named - known == set()
    assert len(named) > 10


def test_every_event_of_the_runbook_is_logged() -> None:
    """An operator who searches the log for what the runbook names finds it."""
    named = set(re.findall(r"log `([a-z_]+)`", TEXT)) | {"engine_restarted", "policy_fallback", "controller_moved"}
    sources = "".join(
        path.read_text(encoding="utf-8")
        for package in ("service", "trainer", "rewards")
        for path in (ROOT / package).rglob("*.py")
    )
    assert {event for event in named if f'"{event}"' not in sources} == set()
