"""A brief and a reply as the token ids that a reward model reads: for training and for scoring, the same.

The brief is rewards.preference.conversation's one user turn, the reply the assistant's. With a chat template the
tokenizer's own is used; without one the two texts are paragraphs, ended by the end token. What looks like a control
token in either text is spelled out, so that a reply cannot end its own turn and speak as somebody else.
"""

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from agent.brief import Brief
from agent.dialogue import Role, Turn
from agent.errors import ModelError
from agent.neutralise import neutralise
from rewards.preference import conversation


class RewardEncoder:
    """Encodes for one backbone. Threads may share it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._special_tokens = sorted(
            {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
            | set(tokenizer.all_special_tokens)
        )

    @property
    def max_tokens(self) -> int:
        """What the tokenizer says its model reads at most; a huge number when it says nothing."""
        return int(self.tokenizer.model_max_length)

    @classmethod
    def load(cls, source: str) -> "RewardEncoder":
        """The tokenizer of a backbone's folder or Hugging Face id.

        Raises:
            ModelError: there is none.
        """
        try:
            return cls(AutoTokenizer.from_pretrained(source))
        except (OSError, ValueError) as error:
            raise ModelError(f"the tokenizer of the reward model {source} cannot be loaded: {error}") from error

    def encode(self, brief: Brief, reply: str) -> list[int]:
        """Token ids of the whole conversation, never cut.

        Raises:
            ValueError: the chat template does not take a user's and an assistant's turn.
        """
        turns = [*conversation(brief), Turn(Role.ASSISTANT, reply)]
        texts = [neutralise(turn.content, self._special_tokens) for turn in turns]
        if self.tokenizer.chat_template is None:
            return self._ended(list(self.tokenizer("\n\n".join(texts))["input_ids"]))
        messages = [{"role": turn.role.value, "content": text} for turn, text in zip(turns, texts, strict=True)]
        try:
            text = str(self.tokenizer.apply_chat_template(messages, tokenize=False))
        except TemplateError as error:
            raise ValueError(f"the chat template refuses a user's and an assistant's turn: {error}") from error
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _ended(self, ids: list[int]) -> list[int]:
        """With the end token, unless the tokenizer has put an end of its own."""
        end = self.tokenizer.eos_token_id
        if end is None or ids[-1:] in ([end], [self.tokenizer.sep_token_id]):
            return ids
        return [*ids, end]
