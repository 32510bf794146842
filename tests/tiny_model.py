"""A Llama of about one million parameters, its tokenizer trained on a few sentences: made by tests, needs no hub."""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from service.bench.tokenizer import train_tokenizer


def _vowel_shares(tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """[V]: each token's share of ASCII vowels, less the mean over the vocabulary."""
    texts = [tokenizer.decode([token]) for token in range(len(tokenizer))]
    shares = torch.tensor([sum(c in "aeiouAEIOU" for c in text) / max(len(text), 1) for text in texts])
    return shares - shares.mean()


def save_tiny_llama(
    folder: Path, *, seed: int = 0, hidden_size: int = 128, num_layers: int = 4, readable: bool = False
) -> Path:
    """Write a random Llama and its tokenizer; about 1.2 million parameters.

    Its head has one planted direction, along which tokens rich in vowels become likelier: a trained model has such
    directions for what it knows, a random one has none, and GRPO would need thousands of samples to make one. A
    ``readable`` one has the like in what it reads, for reward models trained on it.
    """
    tokenizer = train_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden_size // 32,
        num_key_value_heads=hidden_size // 64,
        max_position_embeddings=512,
        initializer_range=0.05,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config).float()
    with torch.no_grad():
        model.lm_head.weight[:, 0] += _vowel_shares(tokenizer)
        if readable:
            model.model.embed_tokens.weight[:, 1] += _vowel_shares(tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
