"""What the trainer's tests are made of: completions, episodes, a Llama of a few thousand parameters."""

from dataclasses import replace
from datetime import UTC, datetime

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from agent.brief import Brief, Kind
from agent.completion import Completion, FinishReason, Sampling, VersionSpan
from agent.episode import Episode, PromptRef
from agent.verdict import LanguageVerdict, Verdict
from trainer import attention
from trainer.objective_settings import ObjectiveSettings
from trainer.ports import LearnerSettings

VOCAB_SIZE = 48
SETTINGS = LearnerSettings(
    rank=4,
    alpha=8.0,
    target_modules=("q_proj", "v_proj", "down_proj"),
    learning_rate=1e-2,
    weight_decay=0.0,
    max_grad_norm=1.0,
    objective=ObjectiveSettings(
        loss="grpo",
        objective="decoupled",
        clip_low=0.2,
        clip_high=0.2,
        importance_correction="token_truncate",
        importance_cap=2.0,
        kl_weight=0.0,
    ),
    updates_per_batch=1,
    reply_tokens=16,
    microbatch_tokens=256,
    logit_chunk_tokens=5,
    seed=0,
)


def completion(
    token_ids: tuple[int, ...] = (7, 8, 9),
    *,
    prompt: tuple[int, ...] = (1, 2),
    logprobs: tuple[float, ...] | None = None,
    sampling: Sampling | None = None,
    version: int = 0,
    text: str = "",
) -> Completion:
    """A completion whose tokens all had log-probability -0.5 unless it says otherwise."""
    return Completion(
        text=text,
        prompt_token_ids=prompt,
        token_ids=token_ids,
        logprobs=(-0.5,) * len(token_ids) if logprobs is None else logprobs,
        sampling=sampling or Sampling(max_tokens=16),
        finish_reason=FinishReason.STOP,
        versions=VersionSpan(version, version),
    )


def brief(language: str = "de") -> Brief:
    """A brief of tenant acme."""
    return Brief("acme", Kind.CREATE, language, instructions="x")


def episode(number: int, language: str = "de", *, siblings: tuple[Completion, ...] = ()) -> Episode:
    """An episode whose prompt is its number, in German, and the language too in others.

    ``siblings`` are its completions in the place of a single one; their prompts are replaced.
    """
    prompt = (number,) if language == "de" else (number, *(ord(letter) % VOCAB_SIZE for letter in language))
    return Episode(
        id=f"{language}-{number}",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        brief=brief(language),
        prompt=PromptRef("v1", "create", language),
        completions=tuple(replace(item, prompt_token_ids=prompt) for item in siblings or (completion(),)),
        served=0,
        verdict=LanguageVerdict(language, Verdict.UNDETERMINED, None, ()),
    )


def tiny_llama(*, tied: bool = False, seed: int = 0) -> LlamaForCausalLM:
    """A random Llama with two layers, grouped-query attention and 48 tokens."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,
        tie_word_embeddings=tied,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    attention.register()
    config._attn_implementation = attention.CAUSAL
    model = LlamaForCausalLM(config)
    model.float()
    model.eval()
    return model
