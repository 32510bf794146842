"""ColoqWorker that remembers what vLLM would have sent with every token."""

from collections import defaultdict
from typing import Any

from trainer.worker import ColoqWorker


class KeepingWorker(ColoqWorker):
    """``sent`` tells what its engine's replies bring along, read another way."""

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        super().load_model(*args, **kwargs)
        self._sent: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
        note = self._sampled.note

        def remember(output: Any) -> None:
            for index, request_id in enumerate(output.req_ids if output.logprobs is not None else []):
                token_ids = output.sampled_token_ids[index]
                row = output.logprobs.slice_request(index, len(token_ids))
                pairs = zip(row.logprob_token_ids.tolist(), row.logprobs.tolist(), strict=True)
                self._sent[request_id[:-9]] += [(ids[0], values[0]) for ids, values in pairs]
            note(output)
            assert output.logprobs is None or output.logprobs.logprobs.shape[1] > 1

        self._sampled.note = remember  # type: ignore[method-assign]

    def sent(self, request_id: str) -> list[tuple[int, float]]:
        """Tokens and log-probabilities of a request, as vLLM itself would cut them out of its steps."""
        return self._sent[request_id]
