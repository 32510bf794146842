"""What the learner computes for one micro-batch, as programs of trainer.graphs.

    ScoringProgram   forward only, before a step's first update: log-probabilities of the proximal policy and the base
    UpdateProgram    forward, loss and backward, once per update

Each writes in place and reads no value back, so that a CUDA graph can hold it.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.attention import CAUSAL
from trainer.head import TokenScores, token_scores
from trainer.loss import PolicyLogprobs, policy_loss
from trainer.microbatch import Microbatch
from trainer.objective_settings import ObjectiveSettings
from trainer.prefix_tree import PrefixTree
from trainer.tally import Tally


@dataclass(frozen=True, slots=True)
class Scorer:
    """The model's scores of a micro-batch's sampled tokens."""

    model: PreTrainedModel
    temperature: float
    chunk_tokens: int

    def __call__(self, microbatch: Microbatch) -> TokenScores:
        """[B, R] each."""
        hidden = last_hidden(self.model, microbatch.token_ids, microbatch.tree)
        scores = token_scores(
            hidden.flatten(0, 1)[microbatch.predictors.flatten()],
            output_head(self.model),
            microbatch.targets.flatten(),
            temperature=self.temperature,
            chunk_tokens=self.chunk_tokens,
        )
        return TokenScores(*map(microbatch.by_sequence, scores))


@dataclass(frozen=True, slots=True)
class UpdateProgram:
    """Adds a micro-batch's gradient and tally up.

    Without proximal log-probabilities in the micro-batch the current ones are taken, which is exact in the first update
    of a step.
    """

    scorer: Scorer
    settings: ObjectiveSettings
    tally: Tally

    def __call__(self, microbatch: Microbatch) -> None:
        scores = self.scorer(microbatch)
        proximal = microbatch.proximal_logprobs
        logprobs = PolicyLogprobs(
            current=scores.logprobs,
            proximal=scores.logprobs.detach() if proximal is None else proximal,
            behaviour=microbatch.behaviour_logprobs,
            reference=microbatch.reference_logprobs,
        )
        loss = policy_loss(logprobs, microbatch.advantages, microbatch.mask, microbatch.token_shares, self.settings)
        loss.value.backward()
        self.tally.add(loss, logprobs, scores.entropies, microbatch.mask)


@dataclass(frozen=True, slots=True)
class ScoringProgram:
    """Writes the log-probabilities that a micro-batch has room for."""

    scorer: Scorer
    as_base: Callable[[], AbstractContextManager[None]]
    """Makes the model the base model for a while."""

    def __call__(self, microbatch: Microbatch) -> None:
        with torch.no_grad():
            if microbatch.proximal_logprobs is not None:
                microbatch.proximal_logprobs.copy_(self.scorer(microbatch).logprobs)
            if microbatch.reference_logprobs is not None:
                with self.as_base():
                    microbatch.reference_logprobs.copy_(self.scorer(microbatch).logprobs)


def last_hidden(model: PreTrainedModel, ids: Tensor, tree: PrefixTree | None = None) -> Tensor:
    """[B, T, H] of the last layer. Right padding needs no mask under causal attention.

    With a tree ``ids`` are its nodes', [1, U].

    Raises:
        ValueError: a tree for a model with another attention, which would read its nodes as one sequence.
    """
    if tree is not None and model.config._attn_implementation != CAUSAL:
        raise ValueError(f"a tree needs the attention {CAUSAL}, got {model.config._attn_implementation}")
    body: nn.Module = getattr(model, model.base_model_prefix)
    places = {} if tree is None else {"position_ids": tree.depths, "tree": tree}
    hidden: Tensor = body(input_ids=ids, use_cache=False, **places).last_hidden_state
    return hidden


def output_head(model: PreTrainedModel) -> Tensor:
    """[V, H]."""
    head: Tensor = model.get_output_embeddings().weight
    return head
