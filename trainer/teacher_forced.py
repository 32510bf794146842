"""Log-probabilities of replies that somebody else wrote, in padded batches."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer.head import token_logprobs
from trainer.objective import last_hidden


@torch.no_grad()
def reply_logprobs(
    model: PreTrainedModel,
    head: Tensor,
    prompts: Sequence[Sequence[int]],
    replies: Sequence[Sequence[int]],
    *,
    chunk_tokens: int,
    batch_tokens: int,
) -> list[list[float]]:
    """Log-probability of each reply token at temperature 1, in the order of the replies.

    Args:
        head: [V, H].
        chunk_tokens: most rows of logits at one time.
        batch_tokens: most positions of a forward pass, padding included, but for a single sequence.
    """
    rows = [[*prompt, *reply] for prompt, reply in zip(prompts, replies, strict=True)]
    values: list[list[float]] = [[] for _ in rows]
    for batch in _batches([len(row) for row in rows], batch_tokens):
        longest = max(len(rows[index]) for index in batch)
        ids = torch.tensor([rows[index] + [0] * (longest - len(rows[index])) for index in batch], device=model.device)
        hidden = last_hidden(model, ids).flatten(0, 1)
        predictors: list[int] = []
        targets: list[int] = []
        for place, index in enumerate(batch):
            start = place * longest + len(prompts[index]) - 1
            predictors += range(start, start + len(replies[index]))
            targets += replies[index]
        chosen = hidden[torch.tensor(predictors, device=model.device)]
        aims = torch.tensor(targets, device=model.device)
        flat = token_logprobs(chosen, head, aims, temperature=1.0, chunk_tokens=chunk_tokens).tolist()
        for index in batch:
            values[index], flat = flat[: len(replies[index])], flat[len(replies[index]) :]
    return values


def _batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Indices by length, so that little is padding."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[index] * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
