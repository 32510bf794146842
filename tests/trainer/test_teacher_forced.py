"""Replies scored in batches, against one after another."""

import pytest
import torch

from tests.trainer.samples import tiny_llama
from trainer.objective import output_head
from trainer.teacher_forced import _batches, reply_logprobs

PROMPTS = [[3, 4, 5], [6], [7, 8, 9, 10, 11, 12], [3]]
REPLIES = [[5, 6], [7, 8, 9, 10], [11], [4, 4, 4]]


@pytest.mark.parametrize("batch_tokens", [1, 12, 1000])
def test_batches_score_as_single_rows_do(batch_tokens: int) -> None:
    """By log_softmax over all logits, each reply by itself: one in a batch, some, all."""
    model = tiny_llama()
    found = reply_logprobs(model, output_head(model), PROMPTS, REPLIES, chunk_tokens=3, batch_tokens=batch_tokens)
    for prompt, reply, ours in zip(PROMPTS, REPLIES, found, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prompt, *reply]])).logits[0]
        logs = torch.log_softmax(logits.float(), dim=-1)[len(prompt) - 1 : -1]
        assert ours == pytest.approx([logs[i, token].item() for i, token in enumerate(reply)], abs=1e-5)


def test_batches_hold_as_much_as_they_may() -> None:
    """Sorted by length; a sequence that is longer than a batch has one of its own."""
    assert list(_batches([5, 2, 3, 9], 8)) == [[1, 2], [0], [3]]
    assert list(_batches([5, 2, 3, 9], 100)) == [[1, 2, 0, 3]]
    assert list(_batches([], 8)) == []
