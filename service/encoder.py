"""agent.ports.PromptEncoder with the served model's own tokenizer and chat template."""

from collections.abc import Sequence

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from agent.neutralise import neutralise


class ChatEncoder:
    """Encodes a system and a user message.

    A model without a chat template (a base model) gets the two texts as paragraphs.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._special_tokens: Sequence[str] = sorted(
            {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
            | set(tokenizer.all_special_tokens)
        )

    @classmethod
    def load(cls, model: str) -> "ChatEncoder":
        """The tokenizer of a model folder or Hugging Face id."""
        return cls(AutoTokenizer.from_pretrained(model))

    def encode(self, system: str, user: str) -> tuple[int, ...]:
        """See agent.ports.PromptEncoder. An empty system message is left out."""
        system, user = (neutralise(text, self._special_tokens) for text in (system, user))
        if self._tokenizer.chat_template is None:
            text = "\n\n".join(part for part in (system, user) if part) + "\n\n"
            return tuple(self._tokenizer(text)["input_ids"])
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": user})
        text = str(self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])
