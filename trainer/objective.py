"""What the learner computes for one micro-batch: forward, GRPO loss and backward.

A program of trainer.graphs: it adds gradients and a tally up in place and reads no value back, so that a CUDA graph can
hold it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.head import token_logprobs
from trainer.loss import grpo_loss
from trainer.microbatch import Microbatch
from trainer.ports import LearnerSettings

TALLY = ("loss", "clipped", "mismatch", "weights", "squared_weights")
"""What the micro-batches of a step add up, in the order of the tally's elements."""


@dataclass(frozen=True, slots=True)
class Objective:
    """Forward, GRPO loss and backward of one micro-batch; no value is read back."""

    model: PreTrainedModel
    settings: LearnerSettings
    tally: Tensor
    temperature: float

    def __call__(self, microbatch: Microbatch) -> None:
        hidden = last_hidden(self.model, microbatch.token_ids)
        predicting = hidden.flatten(0, 1)[microbatch.predictors.flatten()]
        logprobs = token_logprobs(
            predicting,
            output_head(self.model),
            microbatch.targets.flatten(),
            temperature=self.temperature,
            chunk_tokens=self.settings.logit_chunk_tokens,
        ).view(microbatch.targets.shape)
        loss = grpo_loss(
            logprobs,
            logprobs.detach(),
            microbatch.behaviour_logprobs,
            microbatch.advantages,
            microbatch.mask,
            microbatch.weights,
            clip_low=self.settings.clip_low,
            clip_high=self.settings.clip_high,
            importance_cap=self.settings.importance_cap,
        )
        loss.value.backward()
        weights = loss.weights.double()
        sums = (loss.value.detach(), loss.clipped, loss.mismatch, weights.sum(), weights.square().sum())
        self.tally.add_(torch.stack([value.double() for value in sums]))


def last_hidden(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """[B, T, H] of the last layer. Right padding needs no mask under causal attention."""
    body: nn.Module = getattr(model, model.base_model_prefix)
    hidden: Tensor = body(input_ids=ids, use_cache=False).last_hidden_state
    return hidden


def output_head(model: PreTrainedModel) -> Tensor:
    """[V, H]."""
    head: Tensor = model.get_output_embeddings().weight
    return head
