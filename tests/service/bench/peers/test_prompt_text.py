"""Texts of an exact number of tokens."""

import pytest

from service.bench.peers.prompt_text import texts_of_length
from service.bench.tokenizer import train_tokenizer


def characters(text: str) -> list[int]:
    return [ord(character) for character in text]


@pytest.mark.parametrize("num_tokens", [20, 21, 127])
def test_texts_have_the_length_in_any_vocabulary(num_tokens: int) -> None:
    """With one token per character as well as with a byte-level tokenizer."""
    tokenizer = train_tokenizer()

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer(text)["input_ids"]
        return ids

    for encoding in (characters, encode):
        assert {len(encoding(text)) for text in texts_of_length(encoding, 3, num_tokens, seed=0)} == {num_tokens}


def test_texts_differ_and_repeat_by_seed() -> None:
    """Four prompts are four texts; the same seed gives the same four."""
    texts = texts_of_length(characters, 4, 60, seed=1)
    assert len(set(texts)) == 4
    assert texts == texts_of_length(characters, 4, 60, seed=1)
    assert texts != texts_of_length(characters, 4, 60, seed=2)


def test_a_length_below_one_word_is_refused() -> None:
    """A template that is longer than the asked length leaves no room."""
    with pytest.raises(ValueError, match="must be able to have 10 tokens, got"):
        texts_of_length(lambda text: characters("a template of its own " + text), 1, 10, seed=0)
