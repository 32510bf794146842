"""What every part of a node stands on."""

from dataclasses import dataclass
from pathlib import Path

from service.config import NodeConfig
from service.ledger import Ledger
from service.store import Store
from service.telemetry import Metrics


@dataclass(frozen=True, slots=True)
class Ground:
    """Configuration, data folder, store and metrics of one node."""

    config: NodeConfig
    data_dir: Path
    store: Store
    ledger: Ledger
    metrics: Metrics
