"""What is computed for one micro-batch: scores before the updates, and the update itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from tests.trainer.samples import SETTINGS, completion, tiny_llama
from trainer.batch import build_batch
from trainer.cutting import Cut, cut_up
from trainer.group import TrainingSequence
from trainer.lora import Adapter
from trainer.microbatch import Microbatch
from trainer.objective import Scorer, ScoringProgram, UpdateProgram
from trainer.tally import Tally

CPU = torch.device("cpu")
PROMPTS, REPLIES = [(3, 4, 5), (6, 7)], [(20, 21, 22), (30, 31)]


def _microbatch() -> Microbatch:
    sequences = [
        TrainingSequence(completion(reply, prompt=prompt), advantage, "de")
        for prompt, reply, advantage in zip(PROMPTS, REPLIES, (1.0, -0.5), strict=True)
    ]
    batch = build_batch(sequences)
    (microbatch,) = cut_up(batch, batch.advantages * 0 + 0.25, Cut(256), shapes=[], device=CPU)
    return microbatch


def _logprobs(row: int) -> Tensor:
    """Of a reply under the base model at temperature 0.7, from all its logits."""
    ids = torch.tensor([[*PROMPTS[row], *REPLIES[row]]])
    start = len(PROMPTS[row]) - 1
    with torch.no_grad():
        logits = tiny_llama()(input_ids=ids).logits[0, start:-1] / 0.7
    return torch.log_softmax(logits, dim=1).gather(1, torch.tensor(REPLIES[row]).unsqueeze(1)).squeeze(1)


def test_scoring_writes_what_there_is_room_for() -> None:
    """The base's log-probabilities with the adapter off, the proximal policy's with it on; no gradient is left."""
    model = tiny_llama().requires_grad_(False)
    adapter = Adapter(model, SETTINGS.target_modules, rank=4, alpha=8)
    adapter.initialise(0)
    with torch.no_grad():
        adapter.flat.add_(0.1)
    scorer = Scorer(model, 0.7, 5)
    program = ScoringProgram(scorer, adapter.switched_off)
    microbatch = _microbatch().with_room(proximal=True, reference=True)
    program(microbatch)
    assert microbatch.proximal_logprobs is not None
    assert microbatch.reference_logprobs is not None
    for row in range(2):
        found = microbatch.reference_logprobs[row, : len(REPLIES[row])]
        torch.testing.assert_close(found, _logprobs(row), rtol=0, atol=1e-5)
    torch.testing.assert_close(microbatch.proximal_logprobs, scorer(microbatch).logprobs.detach(), rtol=0, atol=0)
    assert not torch.equal(microbatch.proximal_logprobs, microbatch.reference_logprobs)
    assert not microbatch.proximal_logprobs.requires_grad
    assert all(parameter.grad is None for parameter in adapter.parameters.values())
    base_only = _microbatch().with_room(proximal=False, reference=True)
    program(base_only)
    assert base_only.proximal_logprobs is None
    assert base_only.reference_logprobs is not None
    assert torch.equal(base_only.reference_logprobs, microbatch.reference_logprobs)


@contextmanager
def _never() -> Iterator[None]:
    raise AssertionError("the base model was not asked for")
    yield


def test_the_base_model_is_left_alone_where_nothing_needs_it() -> None:
    """Room for the proximal policy alone."""
    program = ScoringProgram(Scorer(tiny_llama().requires_grad_(False), 1.0, 5), _never)
    program(_microbatch().with_room(proximal=True, reference=False))


def test_the_current_policy_is_the_proximal_one_of_a_first_update() -> None:
    """An update without proximal log-probabilities is the one with those of a scoring pass just before it."""
    model = tiny_llama()
    scorer = Scorer(model, 1.0, 5)
    scored = _microbatch().with_room(proximal=True, reference=False)
    ScoringProgram(scorer, _never)(scored)
    found = []
    for microbatch in (_microbatch(), scored):
        tally = Tally(CPU)
        model.zero_grad()
        UpdateProgram(scorer, replace(SETTINGS.objective, loss="gspo"), tally)(microbatch)
        found.append((tally.values, [parameter.grad for parameter in model.parameters()]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-7)
