"""Times of a peer's steps, phase by phase."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from service.bench.peers.trl import TrlStep


@dataclass(slots=True)
class Recorder:
    """Times of the step that is running, and the steps that have ended."""

    save: Callable[[tuple[TrlStep, ...]], None]
    """Called after every step with all of them."""
    synchronize: Callable[[], None] = lambda: None
    """Waits until the device has done what it was given."""
    clock: Callable[[], float] = time.perf_counter
    steps: list[TrlStep] = field(default_factory=list)
    first_began_s: float | None = None
    _began_s: float = 0.0
    _phases: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _replies: list[int] = field(default_factory=list)

    def begin(self) -> None:
        """The first step begins."""
        self.synchronize()
        self.first_began_s = self._began_s = self.clock()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time of the block counts for this phase."""
        began = self.clock()
        try:
            yield
        finally:
            self._phases[name] += self.clock() - began

    def sampled(self, num_tokens: Sequence[int]) -> None:
        """Replies of these lengths were sampled."""
        self._replies += num_tokens

    def end(self) -> None:
        """A step has ended, and the next one begins."""
        self.synchronize()
        now = self.clock()
        total = now - self._began_s
        sync, score = self._phases["sync"], self._phases["score"]
        generation = self._phases["generation"] - sync  # TRL writes the weights as part of generating
        self.steps.append(
            TrlStep(
                total_s=total,
                sync_s=sync,
                generation_s=generation,
                score_s=score,
                train_s=total - sync - generation - score,
                num_sequences=len(self._replies),
                num_tokens=sum(self._replies),
            )
        )
        self._began_s, self._replies = now, []
        self._phases.clear()
        self.save(tuple(self.steps))
