"""A byte-level BPE tokenizer trained on a few sentences, filled up to any vocabulary: needs no hub.

0 … 2                 special tokens of ChatML
3 … trained           bytes, merges, words of the product's own prompts
trained … vocab_size  made-up words that only decoding meets: a random model samples them as often as any other
vocab_size            the end-of-sequence token of `filled_tokenizer`, which no model of that vocabulary can sample
"""

import itertools
import json
from collections.abc import Container, Iterator
from importlib.resources import files

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

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
NEVER_SAMPLED = "<|never|>"
TRAINED_VOCAB_SIZE = 1000
_SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_SPACE = "Ġ"
"""How byte-level BPE writes a space."""
_SYLLABLES = tuple(consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou")


def train_tokenizer(vocab_size: int = TRAINED_VOCAB_SIZE) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with ChatML's special tokens; `<|im_end|>` ends a sequence."""
    return _chat_tokenizer(_train(vocab_size), eos_token="<|im_end|>")


def filled_tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """A tokenizer that decodes every id below ``vocab_size``, and whose end-of-sequence token has the id after them.

    So a model with ``vocab_size`` rows always replies with as many tokens as it is asked for.

    Raises:
        ValueError: ``vocab_size`` is smaller than what training makes.
    """
    trained = json.loads(_train(TRAINED_VOCAB_SIZE).to_str())
    vocabulary: dict[str, int] = trained["model"]["vocab"]
    num_trained = len(vocabulary)
    if vocab_size < num_trained:
        raise ValueError(f"vocab_size must be at least {num_trained}, got {vocab_size}")
    words = list(itertools.islice(_made_up(vocabulary), vocab_size - num_trained))
    vocabulary.update({word: index for index, word in enumerate(words, start=num_trained)})
    tokenizer = Tokenizer.from_str(json.dumps(trained))
    tokenizer.add_special_tokens([NEVER_SAMPLED])
    return _chat_tokenizer(tokenizer, eos_token=NEVER_SAMPLED)


def _train(vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(_SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*SENTENCES, *_templates()] * 4, trainer)
    return tokenizer


def _templates() -> list[str]:
    """The product's own prompts: learned as whole words, they are short."""
    folder = files("agent") / "prompts" / "v1"
    return [(folder / f"{language}.toml").read_text(encoding="utf-8") for language in ("en", "de", "fr", "pl")]


def _chat_tokenizer(tokenizer: Tokenizer, *, eos_token: str) -> PreTrainedTokenizerFast:
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=eos_token, pad_token="<|endoftext|>", bos_token="<|im_start|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _made_up(known: Container[str]) -> Iterator[str]:
    """Words of two, then three syllables, each after a space, none of them in ``known``."""
    for num_syllables in (2, 3):
        for syllables in itertools.product(_SYLLABLES, repeat=num_syllables):
            token = _SPACE + "".join(syllables)
            if token not in known:
                yield token
