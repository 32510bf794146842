"""A Llama of about one million parameters, its tokenizer trained on a few sentences: made by tests, needs no hub."""

from importlib.resources import files
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SENTENCES = (
    "All human beings are born free and equal in dignity and rights.",
    "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
    "Tous les êtres humains naissent libres et égaux en dignité et en droits.",
    "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw.",
    "Todos los seres humanos nacen libres e iguales en dignidad y derechos.",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer(vocab_size: int = 1000) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with ChatML's special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*SENTENCES, *_templates()] * 4, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", bos_token="<|im_start|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _templates() -> list[str]:
    """The product's own prompts: learned as whole words, they are short."""
    folder = files("agent") / "prompts" / "v1"
    return [(folder / f"{language}.toml").read_text(encoding="utf-8") for language in ("en", "de", "fr", "pl")]


def _vowel_shares(tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """[V]: each token's share of ASCII vowels, less the mean over the vocabulary."""
    texts = [tokenizer.decode([token]) for token in range(len(tokenizer))]
    shares = torch.tensor([sum(c in "aeiouAEIOU" for c in text) / max(len(text), 1) for text in texts])
    return shares - shares.mean()


def save_tiny_llama(folder: Path, *, seed: int = 0, hidden_size: int = 128, num_layers: int = 4) -> Path:
    """Write a random Llama and its tokenizer; about 1.2 million parameters.

    Its head has one planted direction, along which tokens rich in vowels become likelier: a trained model has such
    directions for what it knows, a random one has none, and GRPO would need thousands of samples to make one.
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
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
