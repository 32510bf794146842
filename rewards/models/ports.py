"""What judging by models needs of whoever holds them, as a Protocol. Its fake is in rewards.models.fakes."""

from collections.abc import Sequence
from typing import Protocol


class RawScorer(Protocol):
    """The loaded models; in a node the engine process."""

    def raw_scores(
        self, backbone: str, adapter: str | None, rows: Sequence[Sequence[int]], *, within_s: float | None = None
    ) -> list[float]:
        """One score per row of token ids, in order; not finite where the model's is not. Blocks; any thread may call.

        Args:
            adapter: whose weights and head; None takes the backbone's own head.
            within_s: somebody is waiting: goes before other work, and is given up after so many seconds.

        Raises:
            TimeoutError: ``within_s`` was not enough.
            ColoqError: the models cannot be reached, or failed.
        """
        ...
