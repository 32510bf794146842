"""What `POST /v1/chat/completions` answers: a completion at once, or its chunks."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, Field

from agent.chat import ChatReply, Choice
from agent.completion import SampledToken, TokenChoice
from agent.verdict import Verdict
from service.http.content_reply import Usage
from service.http.openai.models import name_of

FinishReasonName = Literal["stop", "length"]


class TopToken(BaseModel):
    """A token that was likely at a position."""

    token: str
    logprob: float
    bytes: list[int] | None = Field(description="UTF-8 of the token; null when it is part of a character.")

    @classmethod
    def of(cls, choice: TokenChoice) -> "TopToken":
        return cls(token=choice.text, logprob=choice.logprob, bytes=_bytes(choice.text))


class Token(TopToken):
    """A token of the reply."""

    top_logprobs: list[TopToken]


class Logprobs(BaseModel):
    """The tokens of a reply, or of a part of it."""

    content: list[Token]
    refusal: None = None

    @classmethod
    def of(cls, tokens: Sequence[SampledToken]) -> "Logprobs":
        return cls(
            content=[
                Token(
                    token=token.chosen.text,
                    logprob=token.chosen.logprob,
                    bytes=_bytes(token.chosen.text),
                    top_logprobs=[TopToken.of(other) for other in token.top],
                )
                for token in tokens
            ]
        )


class ReplyMessage(BaseModel):
    """What was answered."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    """One answer, with its language verdict."""

    index: int
    message: ReplyMessage
    finish_reason: FinishReasonName
    logprobs: Logprobs | None
    language_verdict: Verdict = Field(description="Whether it is in the language that it is judged by; not OpenAI's.")


class ChatCompletion(BaseModel):
    """One or more answers."""

    id: str = Field(description="The request's id.")
    object: Literal["chat.completion"] = "chat.completion"
    created: int = Field(description="Unix seconds.")
    model: str = Field(description="The version that answered.", examples=["coloq@v41"])
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str | None = None

    @classmethod
    def of(cls, reply: ChatReply, *, created: int, logprobs: bool) -> "ChatCompletion":
        return cls(
            id=reply.request_id,
            created=created,
            model=name_of(reply.policy_version),
            choices=[_choice(index, choice, logprobs) for index, choice in enumerate(reply.choices)],
            usage=usage_of(reply),
        )


class Delta(BaseModel):
    """What is new of a choice. The first has its role, the last nothing."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    """A part of one choice."""

    index: int
    delta: Delta
    finish_reason: FinishReasonName | None = None
    logprobs: Logprobs | None = None
    language_verdict: Verdict | None = None


class ChatChunk(BaseModel):
    """A part of the answer."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None


def usage_of(reply: ChatReply) -> Usage:
    """Tokens of all choices; the prompt counts once."""
    prompt, completion = reply.prompt_tokens, reply.completion_tokens
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


def finish_reason_of(choice: Choice) -> FinishReasonName:
    """Why a choice ended, in OpenAI's words."""
    return "length" if choice.reply.finish_reason == "length" else "stop"


def headers_of(reply: ChatReply) -> dict[str, str]:
    """What OpenAI's body has no place for."""
    return {
        "X-Language": reply.language,
        "X-Language-Verdict": reply.verdict.value,
        "X-Policy-Version": str(reply.policy_version),
    }


def _choice(index: int, choice: Choice, logprobs: bool) -> ChatChoice:
    return ChatChoice(
        index=index,
        message=ReplyMessage(content=choice.reply.text),
        finish_reason=finish_reason_of(choice),
        logprobs=Logprobs.of(choice.tokens) if logprobs else None,
        language_verdict=choice.reply.verdict.verdict,
    )


def _bytes(text: str) -> list[int] | None:
    return None if "\ufffd" in text else list(text.encode())
