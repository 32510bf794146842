"""agent.ports.PromptEncoder and DialogueEncoder with the served model's own tokenizer and chat template."""

from collections.abc import Sequence

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from agent.dialogue import Turn
from agent.errors import InvalidBrief
from agent.neutralise import neutralise


class ChatEncoder:
    """Encodes a system and a user message, or a conversation.

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
        return self._encode_messages([*messages, {"role": "user", "content": user}])

    def encode_dialogue(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        """See agent.ports.DialogueEncoder."""
        messages = [
            {"role": turn.role.value, "content": neutralise(turn.content, self._special_tokens)} for turn in turns
        ]
        if self._tokenizer.chat_template is None:
            text = "\n\n".join(message["content"] for message in messages) + "\n\n"
            return tuple(self._tokenizer(text)["input_ids"])
        try:
            return self._encode_messages(messages)
        except TemplateError as error:  # templates of some models want turns to alternate, or no system message
            raise InvalidBrief("messages", f"must be a conversation that this model takes: {error}") from error

    def _encode_messages(self, messages: list[dict[str, str]]) -> tuple[int, ...]:
        text = str(self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])
