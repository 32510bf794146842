"""TRL's GRPOTrainer as the oracle: the same samples and rewards, the same advantages, loss and gradient.

TRL's own code does everything on its side: it takes samples with the engine's log-probabilities from a rollout
function, scores them under the policy and the base model, corrects, masks, splits, and computes the losses.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import peft
import pytest
import torch
from datasets import Dataset
from torch import Tensor, nn

from agent.completion import Completion, FinishReason
from rewards.score import Score
from service.bench.tokenizer import train_tokenizer
from tests.trainer.samples import SETTINGS, brief, completion, tiny_llama
from trainer.batch import TrainingBatch, build_batch
from trainer.group import Group, training_sequences, untruncated
from trainer.lanes import Lane
from trainer.learner import Learner
from trainer.objective_settings import AdvantageScale, ImportanceCorrection, LossType
from trainer.ports import LearnerSettings
from trainer.weights import AdapterWeights

if TYPE_CHECKING:
    from trl.trainer.grpo_trainer import GRPOTrainer

EOS = 2
TEMPERATURE, CLIP_LOW, CLIP_HIGH, CAP, KL_WEIGHT, REPLY_TOKENS = 0.8, 0.2, 0.3, 1.5, 0.1, 6
GROUP_SIZE = 4
PROMPTS = [(3, 4, 5)] * GROUP_SIZE + [(6, 7)] * GROUP_SIZE
"""Two groups, whose prompts differ in length."""
REPLIES = [
    (20, 21, 22, EOS),
    (30, 31, 32, 33, 34, 35),
    (EOS,),
    (20, 31, 40, 41, EOS),
    (33, EOS),
    (12, 13, 14, 15, 16, 17),
    (25, 26, EOS),
    (40, 9, 8, 7, 11, EOS),
]
"""The ones that do not end with a stop token are truncated at REPLY_TOKENS."""
REWARDS = [1.0, 0.0, 0.25, 0.5, 0.0, 0.75, 2.0, 0.125]
LOSSES: tuple[LossType, ...] = ("grpo", "dr_grpo", "bnpo", "dapo", "cispo", "gspo")
CORRECTIONS: tuple[ImportanceCorrection, ...] = (
    "none",
    "token_truncate",
    "token_mask",
    "sequence_truncate",
    "sequence_mask",
)


@dataclass(frozen=True)
class Case:
    """What differs between comparisons."""

    loss: LossType = "grpo"
    correction: ImportanceCorrection = "token_truncate"
    coupled: bool = False
    updated: bool = False
    """The policy has moved since its step began, so that ratios differ from 1 and the clip is in force."""
    kl_weight: float = 0.0
    mask_truncated: bool = False
    num_microbatches: int = 1
    """TRL's; ours are cut by tokens, in another order."""
    microbatch_tokens: int = 256
    siblings: int = 1
    """As in LearnerSettings: with more than one, prompts are shared."""

    @property
    def settings(self) -> LearnerSettings:
        objective = replace(
            SETTINGS.objective,
            loss=self.loss,
            objective="coupled" if self.coupled else "decoupled",
            clip_low=CLIP_LOW,
            clip_high=CLIP_HIGH,
            importance_correction=self.correction,
            importance_cap=CAP,
            kl_weight=self.kl_weight,
        )
        return replace(
            SETTINGS,
            objective=objective,
            updates_per_batch=2 if self.updated else 1,
            reply_tokens=REPLY_TOKENS,
            microbatch_tokens=self.microbatch_tokens,
            siblings=self.siblings,
        )


@pytest.fixture(scope="module")
def trl(tmp_path_factory: pytest.TempPathFactory) -> "GRPOTrainer":
    """One trainer of a LoRA adapter; what a case needs otherwise is set on it."""
    with warnings.catch_warnings():
        # At its import TRL warns of the vLLM that is installed, which is not used here.
        warnings.simplefilter("ignore", UserWarning)
        from trl.trainer.grpo_config import GRPOConfig
        from trl.trainer.grpo_trainer import GRPOTrainer
    config = GRPOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")),
        beta=KL_WEIGHT,
        temperature=TEMPERATURE,
        per_device_train_batch_size=len(REPLIES),
        num_generations=GROUP_SIZE,
        max_completion_length=REPLY_TOKENS,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
    )
    model = tiny_llama()
    model.set_attn_implementation("sdpa")  # TRL pads prompts on the left, and masks that
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=_rewards,
        args=config,
        train_dataset=Dataset.from_list([{"prompt": "a"}]),
        processing_class=train_tokenizer(),
        peft_config=peft.LoraConfig(
            task_type="CAUSAL_LM",
            r=SETTINGS.rank,
            lora_alpha=int(SETTINGS.alpha),
            target_modules=list(SETTINGS.target_modules),
            lora_dropout=0.0,
        ),
    )
    trainer.use_vllm = True  # the correction is for vLLM's samples; no server is asked for anything here
    trainer._last_loaded_step = trainer.state.global_step
    return trainer


def _rewards(completions: list[str], **_: object) -> list[float | None]:
    return list(REWARDS)


def _adapter(seed: int, size: float) -> dict[str, Tensor]:
    """A change of every A and B, by PEFT's names on disk."""
    learner = Learner(tiny_llama(), base_model="tiny")
    learner.begin(SETTINGS, None)
    generator = torch.Generator().manual_seed(seed)
    return {
        name: size * torch.randn(tensor.shape, generator=generator)
        for name, tensor in sorted(learner.snapshot().items())
    }


BEGUN = _adapter(0, 0.3)
"""The policy at the start of the step."""
MOVED = {name: BEGUN[name] + change for name, change in _adapter(4, 0.15).items()}
"""The policy after an update."""


def _samples(learner: Learner, settings: LearnerSettings) -> list[Completion]:
    """With the engine's log-probabilities: the trainer's at the start of the step, but for noise of 0.5 nats."""
    plain = [completion(reply, prompt=prompt) for prompt, reply in zip(PROMPTS, REPLIES, strict=True)]
    batch = _batch(plain, mask_truncated=False)
    microbatches = [one.with_room(proximal=True, reference=False) for one in learner._cut(batch, settings, [])]
    scoring = learner._programs_for(replace(settings, updates_per_batch=2), TEMPERATURE).scoring
    assert scoring is not None
    generator = torch.Generator().manual_seed(5)
    logprobs: dict[tuple[int, ...], tuple[float, ...]] = {}
    for one in microbatches:
        scoring.run(one, Lane(0, None))
        assert one.proximal_logprobs is not None
        replies = one.by_sequence(one.targets.flatten())
        for row in range(len(one.mask)):
            values = one.proximal_logprobs[row][one.mask[row]]
            noisy = values + 0.5 * torch.randn(len(values), generator=generator)
            logprobs[tuple(replies[row][one.mask[row]].tolist())] = tuple(noisy.tolist())
    return [replace(each, logprobs=logprobs[each.token_ids]) for each in plain]


def _batch(samples: Sequence[Completion], *, mask_truncated: bool, scale: AdvantageScale = "group") -> TrainingBatch:
    """As a step of the loop makes it."""
    samples = [
        replace(one, finish_reason=FinishReason.STOP if one.token_ids[-1] == EOS else FinishReason.LENGTH)
        for one in samples
    ]
    scores = [Score(reward, "fake@1") for reward in REWARDS]
    groups = [
        Group(brief(), tuple(samples[start : start + GROUP_SIZE]), tuple(scores[start : start + GROUP_SIZE]))
        for start in range(0, len(samples), GROUP_SIZE)
    ]
    sequences = training_sequences(groups, scale)
    kept = untruncated(sequences) if mask_truncated else sequences
    return replace(build_batch(kept, num_masked=len(sequences) - len(kept)), temperature=TEMPERATURE)


def _ours(case: Case) -> tuple[float, float, dict[str, Tensor], list[Completion]]:
    """Loss, clipped tokens, gradient, and the samples, of an update as the learner takes it."""
    settings = case.settings
    learner = Learner(tiny_llama(), base_model="tiny")
    learner.begin(settings, BEGUN)
    samples = _samples(learner, settings)
    batch = _batch(samples, mask_truncated=case.mask_truncated)
    programs = learner._programs_for(settings, TEMPERATURE)
    microbatches = list(learner._cut(batch, settings, []))
    assert all((one.tree is not None) == (case.siblings > 1) for one in microbatches)
    weights = learner.weights
    assert isinstance(weights, AdapterWeights)
    for one in microbatches:
        if programs.scoring is not None:
            programs.scoring.run(one, Lane(0, None))
    if case.updated:
        weights._adapter.load(MOVED)
    for one in microbatches:
        programs.update.run(one, Lane(0, None))
    (flat,) = weights.optimizer.gradients
    gradients = {name: flat[where].clone() for name, where in weights._adapter.slices.items()}
    totals = learner._tally.read()
    return totals.loss, totals.clipped, gradients, samples


def _set(trl: "GRPOTrainer", case: Case) -> None:
    """TRL's configuration of a case. Its cispo bounds the ratio at epsilon_high itself."""
    trl.loss_type = "grpo" if case.loss == "gspo" else case.loss
    trl.importance_sampling_level = "sequence" if case.loss == "gspo" else "token"
    trl.epsilon_low = CLIP_LOW
    trl.epsilon_high = 1 + CLIP_HIGH if case.loss == "cispo" else CLIP_HIGH
    trl.beta = case.kl_weight
    trl.mask_truncated_completions = case.mask_truncated
    trl.vllm_importance_sampling_correction = case.correction != "none" and not case.coupled
    trl.vllm_importance_sampling_mode = case.correction
    trl.vllm_importance_sampling_clip_max = CAP
    # Without a correction TRL scores the policy that a step begins with only where it needs to.
    trl.num_iterations = 2 if case.updated else 1
    trl.current_gradient_accumulation_steps = case.num_microbatches
    for name in ("steps_per_generation", "gradient_accumulation_steps"):
        setattr(trl.args, name, case.num_microbatches)


def _model(trl: "GRPOTrainer") -> nn.Module:
    assert trl.model is not None
    return trl.model


def _load(trl: "GRPOTrainer", tensors: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in _model(trl).named_parameters():
            if parameter.requires_grad:
                parameter.copy_(tensors[name.replace(".default", "")])


def _generated(trl: "GRPOTrainer", samples: Sequence[Completion]) -> dict[str, Any]:
    """TRL's batch: samples scored, rewarded, corrected and masked."""
    trl.rollout_func = lambda prompts, trainer: {
        "prompt_ids": [list(one.prompt_token_ids) for one in samples],
        "completion_ids": [list(one.token_ids) for one in samples],
        "logprobs": [list(one.logprobs) for one in samples],
    }
    _model(trl).train()
    batch: dict[str, Any] = trl._generate_and_score_completions([{"prompt": "a"}] * len(samples))
    return batch


def _theirs(trl: "GRPOTrainer", case: Case, samples: Sequence[Completion]) -> tuple[float, dict[str, Tensor]]:
    from trl.trainer.utils import split_tensor_dict

    _set(trl, case)
    _load(trl, BEGUN)
    batch = _generated(trl, samples)
    if case.coupled:
        batch["old_per_token_logps"] = batch["sampling_per_token_logps"]
    if case.updated:
        _load(trl, MOVED)
    _model(trl).zero_grad()
    loss = 0.0
    for part in split_tensor_dict(batch, case.num_microbatches):
        value = trl.compute_loss(trl.model, part)
        value.backward()
        loss += value.item()
    gradients = {
        name.replace(".default", ""): parameter.grad.flatten().clone()
        for name, parameter in _model(trl).named_parameters()
        if parameter.grad is not None
    }
    return loss, gradients


def _assert_equal(trl: "GRPOTrainer", case: Case) -> None:
    loss, clipped, gradients, samples = _ours(case)
    their_loss, their_gradients = _theirs(trl, case, samples)
    assert loss == pytest.approx(their_loss, rel=1e-5, abs=1e-5)
    torch.testing.assert_close(gradients, their_gradients, rtol=1e-5, atol=1e-5)  # some are near 10
    assert max(float(gradient.abs().max()) for gradient in gradients.values()) > 1e-3
    if case.updated:
        assert clipped > 0


SHARING = pytest.mark.parametrize("siblings", [1, GROUP_SIZE])
"""Each sequence apart, or prompts once for their groups."""


@SHARING
@pytest.mark.parametrize(("loss", "correction", "updated"), list(product(LOSSES, CORRECTIONS, (False, True))))
def test_loss_and_gradient_are_those_of_trl(
    trl: "GRPOTrainer", loss: LossType, correction: ImportanceCorrection, updated: bool, siblings: int
) -> None:
    """Every loss with every correction, where the policy is still the one that the step began with, and where the clip
    is in force; replies of 1 to 6 tokens."""
    _assert_equal(trl, Case(loss, correction, updated=updated, siblings=siblings))


@SHARING
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("updated", [False, True])
def test_the_kl_term_is_that_of_trl(trl: "GRPOTrainer", loss: LossType, updated: bool, siblings: int) -> None:
    """k3 to the model with its adapter off, times the policy ratio, beside a masked correction that it knows nothing
    of."""
    _assert_equal(trl, Case(loss, "token_mask", updated=updated, kl_weight=KL_WEIGHT, siblings=siblings))


@pytest.mark.parametrize("loss", LOSSES)
def test_masked_truncated_replies_are_those_of_trl(trl: "GRPOTrainer", loss: LossType) -> None:
    """Two of eight: they count in means over replies and in nothing else."""
    _assert_equal(trl, Case(loss, "sequence_truncate", updated=True, kl_weight=KL_WEIGHT, mask_truncated=True))


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss != "bnpo"])
@pytest.mark.parametrize("mask_truncated", [False, True])
@pytest.mark.parametrize(("siblings", "microbatch_tokens"), [(1, 32), (GROUP_SIZE, 12)])
def test_accumulated_micro_batches_are_those_of_trl(
    trl: "GRPOTrainer", loss: LossType, mask_truncated: bool, siblings: int, microbatch_tokens: int
) -> None:
    """TRL's four of two replies in their order, ours of one reply each, longest first, or of some that share a prompt.
    TRL's bnpo depends on the cut: each micro-batch is a mean over its own tokens."""
    case = Case(loss, "token_truncate", updated=True, kl_weight=KL_WEIGHT, mask_truncated=mask_truncated)
    case = replace(case, siblings=siblings, microbatch_tokens=microbatch_tokens)
    _assert_equal(trl, replace(case, num_microbatches=4))


@pytest.mark.parametrize("loss", LOSSES)
def test_coupled_is_trl_s_ratio_to_the_sampling_policy(trl: "GRPOTrainer", loss: LossType) -> None:
    """TRL given the engine's log-probabilities as the old policy's, with its correction off."""
    _assert_equal(trl, Case(loss, coupled=True, updated=True, kl_weight=KL_WEIGHT))


@pytest.mark.parametrize("scale", ["none", "group", "batch"])
def test_advantages_are_those_of_trl(trl: "GRPOTrainer", scale: AdvantageScale) -> None:
    """Of the same rewards, by every scale that TRL has."""
    samples = [completion(reply, prompt=prompt) for prompt, reply in zip(PROMPTS, REPLIES, strict=True)]
    _set(trl, Case())
    trl.scale_rewards = scale
    expected = _generated(trl, samples)["advantages"]
    trl.scale_rewards = "group"
    found = _batch(samples, mask_truncated=False, scale=scale).advantages
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-5)
