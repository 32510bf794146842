"""The served model as the backbone of reward models: its layers are views of the engine's weights, the head is new.

Holds while the served weights stand still, that is with tuning's method ``adapter``: a judge whose weights are being
tuned to please it would be no judge. With ``full`` a copy of its own is loaded instead.
"""

import copy
from collections.abc import Mapping

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from agent.errors import TrainerFailed
from rewards.models.backbone import Classifier, name_padding
from trainer.views import build_training_model


def served_scorer(
    config: PretrainedConfig, engine_parameters: Mapping[str, Tensor], tokenizer: PreTrainedTokenizerBase
) -> Classifier:
    """A sequence-classification model on the engine's tensors; its head of one output is zero until an adapter's.

    Args:
        config: the served model's text configuration; left as it is.
        engine_parameters: vLLM's ``named_parameters()``.
        tokenizer: the served model's.

    Raises:
        TrainerFailed: the architecture has no map (trainer.views), or transformers cannot classify with it.
    """
    decoder = build_training_model(config, engine_parameters).base_model
    weight = next(decoder.parameters())
    model = _blank_scorer(config, weight.dtype)
    setattr(model, model.base_model_prefix, decoder)
    hidden_size = config.get_text_config().hidden_size
    model.score = _Head(hidden_size, 1, bias=False, device=weight.device, dtype=torch.float32)
    nn.init.zeros_(model.score.weight)
    name_padding(model, tokenizer)
    return Classifier(model.eval().requires_grad_(False), has_head=False)


class _Head(nn.Linear):
    """Computes in fp32 behind layers of any precision: in bf16 a score of 2 would have no neighbour before 2.0156, and
    replies of a group are told apart by less."""

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., hidden] to [..., 1] in fp32."""
        return super().forward(hidden.float())


def _blank_scorer(config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    config = copy.deepcopy(config)
    config.num_labels = 1
    try:
        with init_empty_weights():
            model: PreTrainedModel = AutoModelForSequenceClassification.from_config(
                config, attn_implementation="sdpa", dtype=dtype
            )
    except ValueError as error:
        raise TrainerFailed(f"a {config.model_type} cannot be the backbone of reward models: {error}") from error
    if not isinstance(getattr(model, "score", None), nn.Module):
        raise TrainerFailed(f"a {config.model_type} cannot be the backbone of reward models: its head is not `score`")
    return model
