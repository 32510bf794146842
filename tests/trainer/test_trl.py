"""TRL's GRPO as the oracle: same batch, same loss, same gradient."""

import copy
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import LlamaForCausalLM

from service.bench.tokenizer import train_tokenizer
from tests.trainer.samples import VOCAB_SIZE, tiny_llama
from trainer.head import token_logprobs
from trainer.loss import grpo_loss

if TYPE_CHECKING:
    from trl.trainer.grpo_trainer import GRPOTrainer

CLIP_LOW, CLIP_HIGH, CAP, TEMPERATURE = 0.2, 0.3, 2.0, 0.8
PROMPT_LENGTH, REPLY_LENGTH = 3, 5


def _trl(model: LlamaForCausalLM, folder: Path) -> "GRPOTrainer":
    with warnings.catch_warnings():
        # At its import TRL warns of the vLLM that is installed, which is not used here.
        warnings.simplefilter("ignore", UserWarning)
        from trl.trainer.grpo_config import GRPOConfig
        from trl.trainer.grpo_trainer import GRPOTrainer
    config = GRPOConfig(
        output_dir=str(folder),
        loss_type="grpo",
        beta=0.0,
        epsilon=CLIP_LOW,
        epsilon_high=CLIP_HIGH,
        temperature=TEMPERATURE,
        per_device_train_batch_size=4,
        num_generations=4,
        use_cpu=True,
        bf16=False,
        report_to=[],
    )
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=_no_reward,
        args=config,
        train_dataset=Dataset.from_list([{"prompt": "a"}]),
        processing_class=train_tokenizer(),
    )
    trainer.use_vllm = True  # the correction is for vLLM's samples; no server is asked for anything here
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def _no_reward(completions: list[str], **_: object) -> list[float | None]:
    """TRL asks for a reward function; the test brings advantages instead."""
    return [0.0 for _ in completions]


def _gradients(model: LlamaForCausalLM) -> dict[str, Tensor]:
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("off_policy", [0.0, 0.4])
def test_loss_and_gradient_are_those_of_trl(tmp_path: Path, off_policy: float) -> None:
    """GRPOTrainer's own loss code (grpo, no KL, token_truncate) gives the same value and gradients in fp32.

    With ``off_policy`` the proximal policy differs from the trained one, so that the clip is active too.
    """
    ours = tiny_llama()
    theirs = copy.deepcopy(ours)
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, VOCAB_SIZE, (4, PROMPT_LENGTH + REPLY_LENGTH), generator=generator)
    lengths = torch.tensor([5, 2, 3, 1])
    mask = torch.arange(REPLY_LENGTH).unsqueeze(0) < lengths.unsqueeze(1)
    advantages = torch.tensor([1.5, -1.0, 0.25, -0.75])

    hidden = ours.model(input_ids=ids).last_hidden_state[:, PROMPT_LENGTH - 1 : -1]
    flat = token_logprobs(
        hidden.flatten(0, 1), ours.lm_head.weight, ids[:, PROMPT_LENGTH:].flatten(), temperature=0.8, chunk_tokens=6
    )
    logprobs = flat.view(4, REPLY_LENGTH)
    proximal = logprobs.detach() + off_policy * torch.randn(logprobs.shape, generator=generator)
    behaviour = proximal + 0.6 * torch.randn(logprobs.shape, generator=generator)
    loss = grpo_loss(
        logprobs,
        proximal,
        behaviour,
        advantages,
        mask,
        torch.full((4,), 0.25),
        clip_low=CLIP_LOW,
        clip_high=CLIP_HIGH,
        importance_cap=CAP,
    )
    loss.value.backward()

    trl = _trl(theirs, tmp_path)
    reference = trl.compute_loss(
        theirs,
        {
            "prompt_ids": ids[:, :PROMPT_LENGTH],
            "prompt_mask": torch.ones(4, PROMPT_LENGTH, dtype=torch.long),
            "completion_ids": ids[:, PROMPT_LENGTH:],
            "completion_mask": mask.long(),
            "advantages": advantages,
            "old_per_token_logps": proximal,
            "importance_sampling_ratio": torch.exp(proximal - behaviour).clamp(max=CAP),
        },
    )
    reference.backward()

    torch.testing.assert_close(loss.value, reference, rtol=0, atol=1e-5)
    torch.testing.assert_close(_gradients(ours), _gradients(theirs), rtol=0, atol=1e-5)
    assert (int(loss.clipped) > 0) == (off_policy > 0)
