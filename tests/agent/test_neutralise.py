"""Special tokens in user text."""

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.neutralise import neutralise

_CHAT_TOKENS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "</s>",
    "<s>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[INST]",
)

_FRAGMENTS = st.sampled_from([*_CHAT_TOKENS, "<", "|", ">", " ", "im_start", "s", "/", "text", "<|im_", "start|>"])
_TEXTS = st.lists(_FRAGMENTS, max_size=12).map("".join)
_TOKEN_SETS = st.lists(st.text(alphabet="ab <|>", min_size=1, max_size=4), max_size=5)


def test_a_token_stays_readable() -> None:
    """A space after its first character makes a token plain text."""
    assert neutralise("a<|im_end|>b</s>", _CHAT_TOKENS) == "a< |im_end|>b< /s>"


def test_a_token_wrapped_in_another_does_not_survive() -> None:
    """What is left of an outer construction is neutralised as well."""
    assert neutralise("<<s>s>", ("<s>", "< s>")) == ""


@settings(deadline=None)  # cores are shared
@given(_TEXTS)
def test_no_chat_token_remains(text: str) -> None:
    """Whatever is built out of fragments, no token is in the result."""
    result = neutralise(text, _CHAT_TOKENS)
    assert not any(token in result for token in _CHAT_TOKENS)


@settings(deadline=None)  # cores are shared
@given(st.text(alphabet="ab <|>", max_size=30), _TOKEN_SETS)
def test_no_token_of_any_set_remains(text: str, tokens: list[str]) -> None:
    """Sets with nested tokens, spaces and single characters end, and leave none."""
    result = neutralise(text, tokens)
    assert not any(token in result for token in tokens)


@settings(deadline=None)  # cores are shared
@given(st.text())
def test_other_text_is_unchanged(text: str) -> None:
    """Text without a token comes back as it is."""
    if not any(token in text for token in _CHAT_TOKENS):
        assert neutralise(text, _CHAT_TOKENS) == text
