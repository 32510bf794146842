"""A node's own metrics of training and its controller, read while a load runs."""

import asyncio
from dataclasses import dataclass
from statistics import fmean

import httpx
from prometheus_client.parser import text_string_to_metric_families

from service.bench.load import LoadResult

_SCRAPE_EVERY_S = 1.0
_SCRAPED = ("coloq_controller_", "coloq_slo_", "coloq_train_", "coloq_engine_step_", "coloq_engine_thread_")


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of the node over a load's window."""

    mean: float
    last: float


class Scraper:
    """Reads the node's metrics every second for the length of an async block."""

    def __init__(self, url: str) -> None:
        self._http = httpx.AsyncClient(base_url=url, trust_env=False)
        self._seen: list[tuple[float, dict[str, float]]] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Scraper":
        self._task = asyncio.create_task(self._read_on())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})
        await self._http.aclose()
        if not self._task.cancelled():
            self._task.result()

    def within(self, window: LoadResult) -> dict[str, Metric]:
        """Metrics that were read in a load's window."""
        values: dict[str, list[float]] = {}
        for at_s, metrics in self._seen:
            if window.began_s <= at_s < window.ended_s:
                for name, value in metrics.items():
                    values.setdefault(name, []).append(value)
        return {name: Metric(fmean(series), series[-1]) for name, series in values.items()}

    async def _read_on(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            text = (await self._http.get("/metrics")).text
            self._seen.append((loop.time(), metrics_of(text)))
            await asyncio.sleep(_SCRAPE_EVERY_S)


def metrics_of(text: str) -> dict[str, float]:
    """The metrics of training and its controller, out of Prometheus' text format, by name and labels."""
    return {
        sample.name + "".join(f"_{value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith(_SCRAPED) and not sample.name.endswith("_created")
    }
