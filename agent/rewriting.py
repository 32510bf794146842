"""Sentences in a wrong language, written again one by one and put back in their places.

    span ─► the product's own template of `translate` ─► engine (live priority, greedy) ─► fit to stand there? ─► splice

A wrong sentence says the right thing in another language, so translating it is what it needs, and every language has
a template for that already.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agent.brief import Brief, Kind
from agent.completion import Completion, FinishReason, Sampling
from agent.config import LanguageSettings
from agent.draft import Judge
from agent.ports import Engine, GenerateRequest, PromptEncoder
from agent.prompt import PromptLibrary
from agent.script import count_letters
from agent.siblings import together
from agent.verdict import Verdict

_ROOM_TOKENS = 32
_TOKENS_PER_CHARACTER = 2
_LONGEST_GROWTH = 3
"""A translation that is longer than so many times its source, and a line, has something else in it."""
_LINE_CHARACTERS = 80
_QUOTES = "\"'“”„«»「」"

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Rewriting:
    """A text with some of its sentences written again."""

    text: str
    replaced: tuple[Span, ...]
    """Where the new sentences stand in ``text``."""
    num_tokens: int
    """Sampled for it, also for sentences that were not fit."""


@dataclass(frozen=True, slots=True)
class SentenceWriter:
    """Writes sentences again. Keeps nothing."""

    engine: Engine
    encoder: PromptEncoder
    prompts: PromptLibrary

    async def rewrite(
        self, text: str, spans: Sequence[Span], judge: Judge, settings: LanguageSettings, request: GenerateRequest
    ) -> Rewriting:
        """``text`` with each span written again in the brief's language, where what came is fit to stand there.

        Args:
            request: the one that the text came from; its tenant, policy version and token limit hold here too.

        Raises:
            EngineError: the first that a sentence raised; the others are then cancelled.
        """
        asked = [
            self._request(text[start:end], number, judge.brief, settings, request)
            for number, (start, end) in enumerate(spans)
        ]
        completions = await together([self.engine.generate(item) for item in asked])
        fit = [
            (span, sentence)
            for span, completion in zip(spans, completions, strict=True)
            if (sentence := _fit(completion, text[span[0] : span[1]], judge)) is not None
        ]
        num_tokens = sum(len(completion.token_ids) for completion in completions)
        return _spliced(text, fit, num_tokens)

    def _request(
        self, sentence: str, number: int, brief: Brief, settings: LanguageSettings, request: GenerateRequest
    ) -> GenerateRequest:
        wanted = Brief(
            tenant=brief.tenant,
            kind=Kind.TRANSLATE,
            language=brief.language,
            text=sentence,
            register=brief.register,
            glossary=brief.glossary,
        )
        prompt = self.prompts.render(wanted, address=settings.address)
        longest = _ROOM_TOKENS + _TOKENS_PER_CHARACTER * len(sentence)
        sampling = Sampling(max_tokens=min(longest, request.sampling.max_tokens), temperature=0.0)
        token_ids = self.encoder.encode(prompt.system, prompt.user)
        return replace(
            request,
            request_id=f"{request.request_id}-sentence-{number}",
            prompt_token_ids=token_ids,
            sampling=sampling,
            listener=None,
        )


def _fit(completion: Completion, original: str, judge: Judge) -> str | None:
    """The sentence that a completion holds; None when it is cut off, no sentence, or still in another language."""
    sentence = completion.text.strip()
    if sentence[:1] in _QUOTES and original[:1] not in _QUOTES:
        sentence = sentence.strip(_QUOTES)
    too_long = len(sentence) > _LONGEST_GROWTH * len(original) + _LINE_CHARACTERS
    if completion.finish_reason is not FinishReason.STOP or "\n" in sentence or too_long:
        return None
    if not count_letters(sentence) or sentence.casefold() == original.casefold():
        return None
    return None if judge.of_text(sentence).verdict is Verdict.FAILED else sentence


def _spliced(text: str, sentences: Sequence[tuple[Span, str]], num_tokens: int) -> Rewriting:
    """Spans are in order and do not overlap, as a verdict has them."""
    pieces: list[str] = []
    replaced: list[Span] = []
    length = position = 0
    for (start, end), sentence in sentences:
        before = text[position:start]
        length += len(before)
        replaced.append((length, length + len(sentence)))
        length += len(sentence)
        pieces += [before, sentence]
        position = end
    return Rewriting("".join([*pieces, text[position:]]), tuple(replaced), num_tokens)
