"""A stand-in for the loaded models, for tests and for trying a configuration."""

from collections.abc import Callable, Sequence


class FakeRawScorer:
    """Scores rows by a function of backbone, adapter and row; ``failure`` is raised instead while it is set."""

    def __init__(self, judge: Callable[[str, str | None, tuple[int, ...]], float]) -> None:
        self._judge = judge
        self.failure: Exception | None = None
        self.asked: list[tuple[str, str | None, int, float | None]] = []
        """Backbone, adapter, number of rows and ``within_s`` of every call."""

    def raw_scores(
        self, backbone: str, adapter: str | None, rows: Sequence[Sequence[int]], *, within_s: float | None = None
    ) -> list[float]:
        """See RawScorer.raw_scores."""
        self.asked.append((backbone, adapter, len(rows), within_s))
        if self.failure is not None:
            raise self.failure
        return [self._judge(backbone, adapter, tuple(row)) for row in rows]
