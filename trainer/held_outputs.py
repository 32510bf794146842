"""Keeps what the engine has sampled in its process until the reply is done, where nobody reads it as it comes.

    step's outputs ──► first token of a reply: passed on, its time counts
                       further tokens: held back
                       the end: passed on, with all that was held back

vLLM tells the front process of every token of every request, whose event loop then works on each. Knows nothing of vLLM
but the shape of its scheduler's outputs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

_ROOM = 256
"""Replies beyond twice those that run; more are of requests that were aborted."""


class RequestOutput(Protocol):
    """vLLM's EngineCoreOutput."""

    request_id: str
    new_token_ids: list[int]
    new_logprobs: Any
    """Who wants them listens; what else needs them is trainer.sampled's."""
    events: list[Any] | None
    finish_reason: Any
    """None while the reply goes on."""
    kv_transfer_params: dict[str, Any] | None
    """Handed on to the finished output as it is."""


Output = TypeVar("Output", bound=RequestOutput)


class _Held(NamedTuple):
    token_ids: list[int]
    events: list[Any]

    def add(self, output: RequestOutput) -> None:
        self.token_ids.extend(output.new_token_ids)
        if output.events:
            self.events.extend(output.events)

    def put_before(self, output: RequestOutput) -> None:
        """Make one output of everything since the first token."""
        self.add(output)
        output.new_token_ids = self.token_ids
        output.new_logprobs = None
        output.events = self.events or None


class HeldOutputs:
    """Of one scheduler."""

    def __init__(self, at_the_end: Callable[[RequestOutput], None] = lambda output: None) -> None:
        """``at_the_end`` may add to the output with which a reply ends."""
        self._at_the_end = at_the_end
        self._held: dict[str, _Held] = {}

    @property
    def num_held(self) -> int:
        """Replies that something may be held back of."""
        return len(self._held)

    def pass_on(
        self, outputs: Sequence[Output], requests: Mapping[str, Any], listens: Callable[[Any], bool]
    ) -> list[Output]:
        """Those of a step's outputs that the front process gets.

        Args:
            requests: those that run, by id.
            listens: true for a request whose tokens are wanted one by one.
        """
        passed = []
        for output in outputs:
            held = self._held.get(output.request_id)
            if output.finish_reason is not None:
                self._at_the_end(output)
            if held is None:
                self._begin(output, requests, listens)
                passed.append(output)
            elif output.finish_reason is None:
                held.add(output)
            else:
                del self._held[output.request_id]
                held.put_before(output)
                passed.append(output)
        return passed

    def _begin(self, output: RequestOutput, requests: Mapping[str, Any], listens: Callable[[Any], bool]) -> None:
        name = output.request_id
        if output.finish_reason is not None or name not in requests or listens(requests[name]):
            return
        if len(self._held) >= 2 * len(requests) + _ROOM:
            self._held = {other: held for other, held in self._held.items() if other in requests}
        self._held[name] = _Held([], [])
