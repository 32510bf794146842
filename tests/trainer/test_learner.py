"""One adapter on one model: where it starts, which way it moves, and what cannot change it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from agent.errors import TrainerFailed
from tests.trainer.samples import SETTINGS, completion, tiny_llama
from trainer.batch import TrainingBatch, build_batch
from trainer.group import TrainingSequence
from trainer.learner import Learner
from trainer.pace import Pace
from trainer.pacer import Pacer
from trainer.ports import LearnerSettings, StepResult
from trainer.weights import FullWeights

PROMPTS = [(3, 4, 5), (6, 7), (8, 9, 10, 11), (12,)]
REPLIES = [(20, 21, 22), (30, 31), (40,), (20, 31, 40, 41, 42)]
ADVANTAGES = [1.0, -0.5, 0.75, -1.25]
FULL = replace(SETTINGS, method="full", learning_rate=1e-3, weight_decay=0.1)


def _learner(settings: LearnerSettings = SETTINGS) -> Learner:
    learner = Learner(tiny_llama(), base_model="tiny")
    learner.begin(settings, None)
    return learner


def _batch(learner: Learner, *rows: int) -> TrainingBatch:
    """On-policy: behaviour log-probabilities are the learner's own."""
    rows = rows or (0, 1, 2, 3)
    sequences = []
    for row in rows:
        (logprobs,) = learner.logprobs([PROMPTS[row]], [REPLIES[row]])
        sampled = completion(REPLIES[row], prompt=PROMPTS[row], logprobs=tuple(logprobs))
        sequences.append(TrainingSequence(sampled, ADVANTAGES[row], "de"))
    return build_batch(sequences)


def _assert_close(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], atol: float) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


def _assert_scores(found: list[list[float]], expected: list[list[float]]) -> None:
    """But for rounding: batches are cut by the run's settings."""
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_whether_a_run_waits_for_the_engine_is_its_own_setting() -> None:
    """Without a run nobody waits; each run says for itself, and the engine signals its steps only where one does."""
    learner = Learner(tiny_llama(), base_model="tiny")
    assert not learner.yields
    learner.begin(replace(SETTINGS, yield_to_engine=True), None)
    assert learner.yields
    learner.begin(SETTINGS, None)
    assert not learner.yields


def test_a_fresh_adapter_changes_nothing() -> None:
    """B is zero, so the first policy's log-probabilities are the base model's."""
    base = Learner(tiny_llama(), base_model="tiny").logprobs(PROMPTS, REPLIES)
    _assert_scores(_learner().logprobs(PROMPTS, REPLIES), base)
    fresh = _learner().snapshot()
    assert all(bool(value.any()) == (".lora_A." in name) for name, value in fresh.items())


def test_logprobs_are_log_softmax_of_the_model_s_logits() -> None:
    """Prompt (3, 4, 5), reply (20, 21, 22): positions 2, 3 and 4 predict the reply."""
    (values,) = Learner(tiny_llama(), base_model="tiny").logprobs([PROMPTS[0]], [REPLIES[0]])
    with torch.no_grad():
        logits = tiny_llama()(input_ids=torch.tensor([[3, 4, 5, 20, 21, 22]])).logits[0]
    expected = torch.log_softmax(logits, dim=1)[[2, 3, 4], [20, 21, 22]]
    assert values == pytest.approx(expected.tolist(), abs=1e-5)


def test_steps_make_good_replies_likelier_and_bad_ones_less_likely() -> None:
    """Replies 0 and 2 have a positive advantage, 1 and 3 a negative one."""
    learner = _learner()
    before = [sum(row) for row in learner.logprobs(PROMPTS, REPLIES)]
    for _ in range(3):
        learner.step(_batch(learner))
    after = [sum(row) for row in learner.logprobs(PROMPTS, REPLIES)]
    assert [late > early for early, late in zip(before, after, strict=True)] == [True, False, True, False]


def test_one_on_policy_step_as_it_is_reported() -> None:
    """Ratios and weights are 1: the loss is minus the mean advantage, (1 - 0.5 + 0.75 - 1.25) / 4 = 0."""
    learner = _learner()
    result = learner.step(_batch(learner))
    assert result.loss == pytest.approx(0, abs=1e-6)
    assert result.effective_sample_size == pytest.approx(1)
    assert result.mismatch_mean == pytest.approx(0, abs=1e-6)
    assert result.clip_fraction == 0
    assert result.grad_norm > 0


def test_mismatch_and_truncated_weights_are_reported() -> None:
    """The engine recorded every token log 4 too low: weights are 4, truncated to 2, and equal, so nothing is lost.

    The loss is minus twice the mean advantage of rows 0 and 2: -2 (1 + 0.75) / 2 = -1.75.
    """
    learner = _learner()
    batch = _batch(learner, 0, 2)
    shifted = np.where(batch.mask, batch.behaviour_logprobs - np.log(4), 0).astype(np.float32)
    result = learner.step(replace(batch, behaviour_logprobs=shifted))
    assert result.loss == pytest.approx(-1.75, abs=1e-5)
    assert result.mismatch_mean == pytest.approx(np.log(4), abs=1e-5)
    assert result.effective_sample_size == pytest.approx(1)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_micro_batches_add_up_to_the_whole_batch(rows: int) -> None:
    """Also when the last one is smaller: the same loss, gradient and next policy."""
    whole, parts = _learner(), _learner(replace(SETTINGS, microbatch_tokens=32 * rows))
    one, other = whole.step(_batch(whole)), parts.step(_batch(parts))
    assert other.loss == pytest.approx(one.loss, abs=1e-6)
    assert other.grad_norm == pytest.approx(one.grad_norm, rel=1e-5)
    assert other.effective_sample_size == pytest.approx(one.effective_sample_size)
    after, expected = (learner.logprobs(PROMPTS, REPLIES) for learner in (parts, whole))
    for ours, theirs in zip(after, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


def test_padding_changes_nothing() -> None:
    """A batch padded to four times the length, with other tokens in the padding, makes the same step."""
    plain, padded = _learner(), _learner()
    batch = _batch(plain)
    width = ((0, 0), (0, 96))
    wide = TrainingBatch(
        token_ids=np.pad(np.where(batch.token_ids == 0, 17, batch.token_ids), width, constant_values=23),
        mask=np.pad(batch.mask, width),
        behaviour_logprobs=np.pad(batch.behaviour_logprobs, width),
        advantages=batch.advantages,
        temperature=batch.temperature,
        oldest_version=0,
    )
    assert padded.step(wide).grad_norm == pytest.approx(plain.step(batch).grad_norm, rel=1e-5)
    _assert_close(padded.snapshot(), plain.snapshot(), atol=1e-5)


def _with(settings: LearnerSettings = SETTINGS, *, updates: int = 1, **objective: Any) -> LearnerSettings:
    """``objective``: fields of ObjectiveSettings that are to differ."""
    return replace(settings, updates_per_batch=updates, objective=replace(settings.objective, **objective))


def _off_policy(batch: TrainingBatch) -> TrainingBatch:
    """The engine recorded something else: half a nat less on even tokens, half a nat more on odd ones."""
    shift = np.where(batch.token_ids % 2 == 0, -0.5, 0.5)
    return replace(
        batch, behaviour_logprobs=np.where(batch.mask, batch.behaviour_logprobs + shift, 0).astype(np.float32)
    )


@pytest.mark.parametrize(
    ("settings", "scores"),
    [
        (SETTINGS, False),
        (_with(updates=3, objective="coupled"), False),
        (_with(updates=3), True),
        (_with(kl_weight=0.1), True),
    ],
    ids=["default", "coupled", "updates", "kl"],
)
def test_nothing_is_scored_ahead_that_is_not_needed(settings: LearnerSettings, scores: bool) -> None:
    """One update without a KL term is one forward pass, and so is each coupled one."""
    programs = _learner(settings)._programs_for(settings, 1.0)
    assert (programs.scoring is not None) == scores


@pytest.mark.parametrize("rows", [1, 3])
def test_coupled_updates_are_as_many_steps_on_the_same_batch(rows: int) -> None:
    """What the clip is measured from does not move, so three updates of a step are three steps of one update."""
    one, other = (
        _learner(replace(_with(updates=updates, objective="coupled"), microbatch_tokens=32 * rows))
        for updates in (3, 1)
    )
    batch = _off_policy(_batch(one))
    result, results = one.step(batch), [other.step(batch) for _ in range(3)]
    _assert_close(one.snapshot(), other.snapshot(), atol=0)
    assert result.loss == pytest.approx(sum(each.loss for each in results) / 3)
    assert result.clip_fraction == pytest.approx(sum(each.clip_fraction for each in results) / 3)
    assert result.grad_norm == max(each.grad_norm for each in results)
    assert result.mismatch_mean == results[0].mismatch_mean


def test_decoupled_updates_are_clipped_near_where_their_step_began() -> None:
    """With a batch that the trained policy sampled itself, proximal and behaviour are one: both objectives take the
    same three updates, and the later ones meet the clip. Two steps of one update never do."""
    decoupled, coupled, steps = (
        _learner(_with(updates=3)),
        _learner(_with(updates=3, objective="coupled")),
        _learner(),
    )
    batch = _batch(decoupled)
    results = [learner.step(batch) for learner in (decoupled, coupled)]
    assert results[0].clip_fraction == results[1].clip_fraction > 0
    assert results[0].grad_norm == pytest.approx(results[1].grad_norm, rel=1e-4)
    for ours, theirs in zip(*(learner.logprobs(PROMPTS, REPLIES) for learner in (decoupled, coupled)), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-3)
    assert [steps.step(batch).clip_fraction for _ in range(2)] == [0, 0]


def test_a_second_update_that_fails_leaves_the_first() -> None:
    """The learning rate makes the first update so large that nothing finite comes after it."""
    one, other = (
        _learner(replace(_with(updates=2), learning_rate=1e17)),
        _learner(replace(SETTINGS, learning_rate=1e17)),
    )
    batch = _batch(one)
    with pytest.raises(TrainerFailed, match="must be finite"):
        one.step(batch)
    other.step(batch)
    _assert_close(one.snapshot(), other.snapshot(), atol=0)


def test_a_kl_term_holds_the_policy_near_the_base_model() -> None:
    """A fresh adapter is the base model, at distance 0. Later the term is smaller than without it, and what is reported
    is k3 of each token's log-probabilities with the adapter on and off."""
    free, held = _learner(_with(kl_weight=1e-9)), _learner(_with(kl_weight=5.0))
    base = Learner(tiny_llama(), base_model="tiny").logprobs(PROMPTS, REPLIES)
    batch = _batch(free)
    assert [learner.step(batch).base_kl for learner in (free, held)] == [pytest.approx(0, abs=1e-9)] * 2
    for _ in range(4):
        free.step(batch)
        held.step(batch)
    current = held.logprobs(PROMPTS, REPLIES)
    gaps = np.concatenate([np.subtract(theirs, ours) for ours, theirs in zip(current, base, strict=True)])
    distance = held.step(batch).base_kl
    assert distance == pytest.approx(float(np.mean(np.exp(gaps) - gaps - 1)), rel=1e-3)
    free_distance = free.step(batch).base_kl
    assert free_distance is not None
    assert distance is not None
    assert 0 < distance < free_distance


def test_the_base_model_is_that_of_the_run_s_start_whatever_the_parent() -> None:
    """A run that goes on from a policy is still held near the untuned model: its first distance is not 0."""
    learner = _learner(_with(kl_weight=0.1))
    batch = _batch(learner)
    learner.step(batch)
    learner.begin(_with(kl_weight=0.1), learner.snapshot())
    distance = learner.step(batch).base_kl
    assert distance is not None
    assert distance > 1e-4


def test_live_weights_have_no_base_to_be_held_near() -> None:
    """The configuration refuses it; so does the learner."""
    learner = _learner(_with(FULL, kl_weight=0.1))
    with pytest.raises(TrainerFailed, match="holds no copy of the base model"):
        learner.step(_batch(_learner()))


def test_entropy_is_the_mean_over_the_sampled_tokens() -> None:
    """Of the whole distribution at the batch's temperature, from the model's logits."""
    learner = _learner()
    batch = replace(_batch(learner), temperature=0.7)
    entropies = []
    with torch.no_grad():
        for prompt, reply in zip(PROMPTS, REPLIES, strict=True):
            logits = tiny_llama()(input_ids=torch.tensor([[*prompt, *reply]])).logits[0, len(prompt) - 1 : -1]
            entropies.append(torch.distributions.Categorical(logits=logits / 0.7).entropy())
    assert learner.step(batch).entropy == pytest.approx(float(torch.cat(entropies).mean()), abs=1e-5)


@pytest.mark.parametrize(("loss", "times"), [("grpo", 0.5), ("gspo", 0.5), ("dr_grpo", 0.5), ("dapo", 1), ("cispo", 1)])
def test_masked_replies_count_in_means_over_replies(loss: str, times: float) -> None:
    """Four truncated replies beside four others halve what each of those weighs; means over tokens do not see them."""
    plain, masked = (_learner(_with(loss=loss)) for _ in range(2))
    batch = _off_policy(_batch(plain))
    one, other = plain.step(batch), masked.step(replace(batch, num_masked=4))
    assert other.loss == pytest.approx(times * one.loss, rel=1e-5)
    assert other.grad_norm == pytest.approx(times * one.grad_norm, rel=1e-5)
    assert other.effective_sample_size == one.effective_sample_size


def test_logit_chunks_change_nothing() -> None:
    """Eleven sampled tokens, in one chunk or in six."""
    whole, chunked = (
        _learner(replace(SETTINGS, logit_chunk_tokens=1000)),
        _learner(replace(SETTINGS, logit_chunk_tokens=2)),
    )
    batch = _batch(whole)
    assert chunked.step(batch).grad_norm == pytest.approx(whole.step(batch).grad_norm, rel=1e-5)


def test_a_gradient_longer_than_the_bound_is_scaled_down() -> None:
    """AdamW's first step does not depend on the gradient's length, so the bound shows in the reported norm only."""
    learner = _learner(replace(SETTINGS, max_grad_norm=1e-9))
    batch = _batch(learner)
    bounded = learner.step(batch).grad_norm
    assert bounded == pytest.approx(_learner().step(batch).grad_norm)


@pytest.mark.parametrize("poison", ["advantages", "behaviour_logprobs"])
def test_a_loss_that_is_not_finite_changes_nothing(poison: str) -> None:
    """The step is refused, the weights stay, and the next clean step goes as if nothing had been."""
    learner, untouched = _learner(), _learner()
    batch = _batch(learner)
    before = learner.snapshot()
    bad = replace(batch, **{poison: np.full_like(getattr(batch, poison), np.nan)})
    with pytest.raises(TrainerFailed, match="must be finite"):
        learner.step(bad)
    _assert_close(learner.snapshot(), before, atol=0)
    learner.step(batch)
    untouched.step(batch)
    _assert_close(learner.snapshot(), untouched.snapshot(), atol=0)


def test_one_bad_row_spoils_the_whole_step() -> None:
    """A NaN in the last micro-batch does not leave the first ones' gradient behind."""
    learner = _learner(replace(SETTINGS, microbatch_tokens=32))
    batch = _batch(learner)
    before = learner.snapshot()
    advantages = batch.advantages.copy()
    advantages[-1] = np.nan
    with pytest.raises(TrainerFailed):
        learner.step(replace(batch, advantages=advantages))
    _assert_close(learner.snapshot(), before, atol=0)


def test_an_update_that_is_not_finite_changes_nothing() -> None:
    """An infinite learning rate ends the step before it reaches the weights."""
    learner = _learner(replace(SETTINGS, learning_rate=float("inf")))
    before = learner.snapshot()
    with pytest.raises(TrainerFailed, match="updated weights"):
        learner.step(_batch(learner))
    _assert_close(learner.snapshot(), before, atol=0)


def test_a_step_that_raised_leaves_no_gradient() -> None:
    """Advantages of another batch make the second micro-batch fail; the next step is a clean one."""
    settings = replace(SETTINGS, microbatch_tokens=64)
    learner, untouched = _learner(settings), _learner(settings)
    batch = _batch(learner)
    outside = batch.token_ids.copy()
    outside[3, 0] = 10_000
    with pytest.raises(IndexError):
        learner.step(replace(batch, token_ids=outside))
    learner.step(batch)
    untouched.step(batch)
    _assert_close(learner.snapshot(), untouched.snapshot(), atol=0)


def test_a_run_may_go_on_from_a_parent() -> None:
    """The parent's weights come back exactly, and the base model has not been touched."""
    learner = _learner()
    learner.step(_batch(learner))
    parent, logprobs = learner.snapshot(), learner.logprobs(PROMPTS, REPLIES)
    learner.begin(SETTINGS, None)
    _assert_scores(
        learner.logprobs(PROMPTS, REPLIES), Learner(tiny_llama(), base_model="tiny").logprobs(PROMPTS, REPLIES)
    )
    learner.begin(SETTINGS, parent)
    _assert_close(learner.snapshot(), parent, atol=0)
    assert learner.logprobs(PROMPTS, REPLIES) == logprobs


def test_a_snapshot_is_a_copy() -> None:
    """Later steps do not change what was kept as a version."""
    learner = _learner()
    kept = learner.snapshot()
    before = {name: value.clone() for name, value in kept.items()}
    learner.step(_batch(learner))
    _assert_close(kept, before, atol=0)


def test_a_parent_of_another_rank_is_refused() -> None:
    """The message names the first tensor that differs; no run has begun then."""
    parent = _learner(replace(SETTINGS, rank=2)).snapshot()
    learner = _learner()
    with pytest.raises(TrainerFailed, match=r"12 tensors differ, the first is base_model\.model\.model\.layers\.0\."):
        learner.begin(SETTINGS, parent)
    with pytest.raises(TrainerFailed, match="must begin"):
        learner.snapshot()
    _assert_scores(
        learner.logprobs(PROMPTS, REPLIES), Learner(tiny_llama(), base_model="tiny").logprobs(PROMPTS, REPLIES)
    )


def test_target_modules_must_exist() -> None:
    """PEFT would pass over the unknown one; a run can begin after the refusal."""
    learner = _learner()
    with pytest.raises(TrainerFailed, match=r"must name linear layers of this model, got \['qkv'\]"):
        learner.begin(replace(SETTINGS, target_modules=("q_proj", "qkv")), None)
    with pytest.raises(TrainerFailed, match=r"must name linear layers of this model, got \['self_attn'\]"):
        learner.begin(replace(SETTINGS, target_modules=("self_attn",)), None)
    learner.begin(SETTINGS, None)
    assert learner.step(_batch(learner)).grad_norm > 0


def test_a_target_may_be_named_with_its_parent() -> None:
    """As PEFT matches names: by their last parts."""
    learner = _learner(replace(SETTINGS, target_modules=("self_attn.q_proj",)))
    assert len(learner.snapshot()) == 4


def test_the_seed_decides_the_run() -> None:
    """The same seed makes the same adapter, whatever was drawn elsewhere; another seed another one."""
    one = _learner().snapshot()
    torch.rand(5)
    _assert_close(_learner().snapshot(), one, atol=0)
    other = _learner(replace(SETTINGS, seed=1)).snapshot()
    name = next(name for name in one if ".lora_A." in name)
    assert not torch.equal(one[name], other[name])


def test_the_process_s_random_state_is_left_alone() -> None:
    """It belongs to the engine, which shares the process: neither a start nor a step draws from it."""
    learner = Learner(tiny_llama(), base_model="tiny")
    state = torch.get_rng_state()
    learner.begin(SETTINGS, None)
    learner.step(_batch(learner))
    assert torch.equal(torch.get_rng_state(), state)


def test_adapters_compute_in_the_model_s_precision() -> None:
    """A bf16 model gets bf16 adapters; their masters are in fp32."""
    learner = Learner(tiny_llama().bfloat16(), base_model="tiny")
    learner.begin(SETTINGS, None)
    assert {value.dtype for value in learner.snapshot().values()} == {torch.bfloat16}
    assert learner.step(_batch(learner)).grad_norm > 0


def test_nothing_steps_before_a_run_begins() -> None:
    """The error says what is missing."""
    with pytest.raises(TrainerFailed, match="a run must begin before it can step"):
        Learner(tiny_llama(), base_model="tiny").step(_batch(_learner()))


def _state(learner: Learner) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in learner.live_weights().items()}


def _plain_loss(model: LlamaForCausalLM, batch: TrainingBatch) -> Tensor:
    """GRPO on all logits at once: one on-policy update, so each token's surrogate has ratio 1 and the advantage times
    the truncated importance weight as its slope; the mean over a reply's tokens, then over replies."""
    ids, mask = torch.from_numpy(batch.token_ids), torch.from_numpy(batch.mask)[:, 1:]
    logits = model(input_ids=ids).logits[:, :-1] / batch.temperature
    logprobs = torch.log_softmax(logits, dim=-1).gather(2, ids[:, 1:, None]).squeeze(2)
    behaviour = torch.from_numpy(batch.behaviour_logprobs)[:, 1:]
    importance = torch.exp(logprobs.detach() - behaviour).clamp(max=SETTINGS.objective.importance_cap)
    ratio = torch.exp(logprobs - logprobs.detach())
    surrogate = ratio * torch.from_numpy(batch.advantages)[:, None] * importance
    return -((surrogate * mask).sum(1) / mask.sum(1)).mean()


@pytest.mark.parametrize("tied", [False, True])
def test_full_steps_are_adamw_s_on_a_plain_model(tied: bool) -> None:
    """Two steps in micro-batches of two replies, off-policy and at temperature 0.7, are torch.optim.AdamW with clipping
    on a Hugging Face model and the loss written out."""
    learner = Learner(tiny_llama(tied=tied), base_model="tiny")
    learner.begin(replace(FULL, microbatch_tokens=64), None)
    plain = tiny_llama(tied=tied)
    adamw = torch.optim.AdamW(plain.parameters(), lr=1e-3, weight_decay=0.1)
    for shift in (0.1, -0.4):
        batch = replace(_batch(learner), temperature=0.7)
        batch = replace(batch, behaviour_logprobs=np.where(batch.mask, batch.behaviour_logprobs + shift, 0))
        adamw.zero_grad()
        loss = _plain_loss(plain, batch)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), SETTINGS.max_grad_norm)
        adamw.step()
        result = learner.step(batch)
        learner.publish_live()
        assert result.loss == pytest.approx(loss.item(), abs=1e-5)
        assert result.grad_norm == pytest.approx(float(norm), rel=1e-5)
        assert result.grad_norm > SETTINGS.max_grad_norm  # the bound was in force
        _assert_close(_state(learner), {name: p.detach() for name, p in plain.named_parameters()}, atol=1e-5)


def test_live_weights_change_when_they_are_published() -> None:
    """A step alone changes nothing that the engine serves; publishing does, and restoring goes back exactly."""
    learner = _learner(FULL)
    before = _state(learner)
    learner.step(_batch(learner))
    _assert_close(_state(learner), before, atol=0)
    learner.publish_live()
    assert not torch.equal(_state(learner)["lm_head.weight"], before["lm_head.weight"])
    learner.restore_live(before)
    _assert_close(_state(learner), before, atol=0)


@pytest.mark.parametrize("tied", [False, True])
def test_a_step_is_scored_before_it_is_live(tied: bool) -> None:
    """Log-probabilities after a step are those after its publication, while the live weights are as they were; also
    after a checkpoint was taken up, whose step is not live yet."""
    learner = Learner(tiny_llama(tied=tied), base_model="tiny")
    learner.begin(FULL, None)
    before, texts = _state(learner), ([[3, 4], [5]], [[6, 7, 8], [9, 10]])
    unchanged = learner.logprobs(*texts)
    learner.step(_batch(learner))
    ahead = learner.logprobs(*texts)
    _assert_close(_state(learner), before, atol=0)
    resumed = Learner(tiny_llama(tied=tied), base_model="tiny")
    resumed.resume(FULL, [(name, tensor.clone()) for name, tensor in learner.export().items()])
    learner.publish_live()
    assert learner.logprobs(*texts) == ahead == resumed.logprobs(*texts)
    assert ahead != unchanged


def test_an_adapter_s_run_publishes_nothing_live() -> None:
    """Its weights are the engine's and frozen; nor is there anything before a run."""
    with pytest.raises(TrainerFailed, match="only method full"):
        _learner().publish_live()
    with pytest.raises(TrainerFailed, match="a run must begin"):
        Learner(tiny_llama(), base_model="tiny").publish_live()


def _prepared(settings: LearnerSettings) -> Learner:
    learner = Learner(tiny_llama(), base_model="tiny")
    learner.prepare(settings, max_length=64, reply_tokens=16, temperature=1.0)
    return learner


def _published_step(learner: Learner, batch: TrainingBatch) -> None:
    learner.step(batch)
    if isinstance(learner.weights, FullWeights):
        learner.publish_live()


@pytest.mark.parametrize("settings", [SETTINGS, FULL], ids=["adapter", "full"])
@pytest.mark.parametrize("rehearsed", [False, True])
def test_a_prepared_learner_steps_as_another(settings: LearnerSettings, rehearsed: bool) -> None:
    """What is allocated ahead is begun anew: two steps are those of a learner that was not prepared."""
    prepared, plain = _prepared(settings), Learner(tiny_llama(), base_model="tiny")
    if rehearsed:
        prepared.rehearse(settings, max_length=64, temperature=1.0)
    batch = _batch(plain)
    for learner in (prepared, plain):
        learner.begin(settings, None)
        _published_step(learner, batch)
        _published_step(learner, batch)
    _assert_close(prepared.snapshot(), plain.snapshot(), atol=0)


@pytest.mark.parametrize("settings", [SETTINGS, FULL], ids=["adapter", "full"])
def test_a_rehearsal_leaves_the_model_and_no_run(settings: LearnerSettings) -> None:
    """A micro-batch has run. Log-probabilities are as before, and there is no step until a run begins."""
    pacer = Pacer((), "a CPU")
    learner, texts = Learner(tiny_llama(), base_model="tiny", pacer=pacer), ([(3, 4, 5)], [(20, 21, 22)])
    learner.prepare(settings, max_length=64, reply_tokens=16, temperature=1.0)
    before = learner.logprobs(*texts)
    learner.rehearse(replace(settings, weight_decay=0.5, learning_rate=0.1), max_length=64, temperature=1.0)
    assert pacer.exchange(Pace(0, 1.0)).num_microbatches == 1
    assert learner.logprobs(*texts) == before
    with pytest.raises(TrainerFailed, match="a run must begin"):
        learner.step(_batch(learner))


def test_a_run_begins_with_the_weights_that_are_live_then() -> None:
    """The node prepares first and restores its policy afterwards: the first step starts from the policy."""
    prepared, plain = _prepared(FULL), Learner(tiny_llama(seed=1), base_model="tiny")
    prepared.restore_live(_state(plain))
    batch = _batch(plain)
    for learner in (prepared, plain):
        learner.begin(FULL, None)
        _published_step(learner, batch)
    _assert_close(_state(prepared), _state(plain), atol=0)


@pytest.mark.parametrize("settings", [SETTINGS, FULL], ids=["adapter", "full"])
def test_a_second_run_starts_fresh(settings: LearnerSettings) -> None:
    """Moments and weights of the first run are gone: from the same start, with other settings, it takes the steps of a
    learner's first run. By method full the start is put back, for the live weights are where a run begins."""
    used, new = _learner(settings), Learner(tiny_llama(), base_model="tiny")
    start, batch = _state(new), _batch(new)
    for _ in range(3):
        _published_step(used, batch)
    if settings.method == "full":
        used.restore_live(start)
    objective = replace(settings.objective, clip_high=0.3, loss="dr_grpo")
    second = replace(settings, learning_rate=3e-3, max_grad_norm=0.5, objective=objective, seed=3)
    for learner in (used, new):
        learner.begin(second, None)
        _published_step(learner, batch)
        _published_step(learner, batch)
    _assert_close(used.snapshot(), new.snapshot(), atol=0)


def test_methods_may_follow_one_another() -> None:
    """A full run after an adapter's trains the model's own weights under their own names; an adapter's run after it
    leaves them where they are. Each makes the step that it makes on a new learner."""
    learner, new = _learner(), _learner(FULL)
    batch = _batch(new)
    learner.step(batch)
    learner.begin(FULL, None)
    _published_step(learner, batch)
    _published_step(new, batch)
    published = _state(learner)
    _assert_close(published, _state(new), atol=0)
    for other in (learner, new):
        other.begin(SETTINGS, None)
        other.step(batch)
    _assert_close(learner.snapshot(), new.snapshot(), atol=0)
    learner.begin(FULL, None)
    _assert_close(_state(learner), published, atol=0)


def test_memory_is_what_training_holds() -> None:
    """Nothing before a run; then the trained weights' own (tests/trainer/test_weights.py), the same in every run."""
    learner = Learner(tiny_llama(), base_model="tiny")
    assert learner.memory() == {}
    for _ in range(2):
        learner.begin(SETTINGS, None)
        assert learner.memory() == {"trained_weights": 5_888, "masters_and_moments": 17_664, "gradients": 5_888}


@pytest.mark.parametrize("settings", [SETTINGS, FULL], ids=["adapter", "full"])
def test_a_resumed_run_takes_the_steps_of_one_that_went_on(settings: LearnerSettings) -> None:
    """Two steps, a copy of the state, a third: another learner that resumes from the copy takes the same third step."""
    ours = _learner(settings)
    batches = [_batch(ours, *rows) for rows in ((0, 1, 2, 3), (0, 1), (2, 3))]

    def take(learner: Learner, batch: TrainingBatch) -> StepResult:
        result = learner.step(batch)
        if settings.method == "full":
            learner.publish_live()
        return replace(result, duration_s=0.0)

    take(ours, batches[0])
    take(ours, batches[1])
    state = {name: tensor.clone() for name, tensor in ours.export().items()}
    other = Learner(tiny_llama(), base_model="tiny")
    other.resume(settings, state.items())
    if settings.method == "full":
        other.publish_live()
    _assert_close(other.snapshot(), ours.snapshot(), atol=0)
    assert take(other, batches[2]) == take(ours, batches[2])
    _assert_close(other.snapshot(), ours.snapshot(), atol=0)


def test_a_state_of_another_run_begins_none() -> None:
    """An adapter of another rank: the message says what does not fit, and the learner waits for a run."""
    state = _learner(replace(SETTINGS, rank=8)).export()
    learner = Learner(tiny_llama(), base_model="tiny")
    with pytest.raises(TrainerFailed, match=r"a checkpoint must fit the run's trained tensors, and master\.0 does not"):
        learner.resume(SETTINGS, state.items())
    with pytest.raises(TrainerFailed, match="a run must begin"):
        learner.export()
