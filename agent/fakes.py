"""Working stand-ins for this package's ports, for tests and for trying the product without a GPU or a store.

Each one keeps its port's contract and records what it was asked, so that tests assert on behaviour instead of mocks.
"""

import asyncio
import hashlib
import random
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from agent.alternatives import best_first
from agent.brief import Brief
from agent.completion import (
    BASE_VERSION,
    Completion,
    FinishReason,
    GenerationTiming,
    SampledToken,
    Sampling,
    TokenChoice,
    VersionSpan,
)
from agent.dialogue import Turn
from agent.episode import Episode
from agent.errors import EngineError, StoreError
from agent.language import Detection
from agent.ports import Claim, Delta, GenerateRequest
from agent.selection import Selection

_FIRST_CONTROL_ID = 0x110000
"""One above the last code point: ids from here on cannot come out of user text."""

SYSTEM_ID, USER_ID, REPLY_ID, STOP_ID = range(_FIRST_CONTROL_ID, _FIRST_CONTROL_ID + 4)


class CharEncoder:
    """One token per character, its code point. Control tokens lie above Unicode, so no text can spell one."""

    def encode(self, system: str, user: str) -> tuple[int, ...]:
        """``SYSTEM_ID system USER_ID user REPLY_ID``."""
        return (SYSTEM_ID, *map(ord, system), USER_ID, *map(ord, user), REPLY_ID)

    def encode_dialogue(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        """``USER_ID`` before every message, with its role's name and a colon; ``REPLY_ID`` at the end."""
        spoken = (f"{turn.role}: {turn.content}" for turn in turns)
        return (*(token_id for text in spoken for token_id in (USER_ID, *map(ord, text))), REPLY_ID)

    @staticmethod
    def decode(token_ids: Sequence[int]) -> str:
        """The text of token ids; control tokens are left out."""
        return "".join(chr(token_id) for token_id in token_ids if token_id < _FIRST_CONTROL_ID)

    @classmethod
    def split(cls, prompt_token_ids: Sequence[int]) -> tuple[str, str]:
        """System and user message of an encoded prompt."""
        ids = list(prompt_token_ids)
        boundary = ids.index(USER_ID)
        return cls.decode(ids[:boundary]), cls.decode(ids[boundary:])


class FakeEngine:
    """Answers with a script: ``reply`` makes the text of a request, one token per character, each with ``logprob``.

    ``version`` answers requests that name none; ``failure`` is raised instead of an answer while it is set. Completions
    say that they took ``timing``. Text ends before a stop string, and who listens gets it word by word, ``pause_s``
    apart. Structured output is the script's own affair.
    """

    def __init__(
        self,
        reply: Callable[[GenerateRequest], str],
        *,
        version: int = BASE_VERSION,
        logprob: float = -0.5,
        timing: GenerationTiming | None = None,
        pause_s: float = 0.0,
    ) -> None:
        self.pause_s = pause_s
        self._reply = reply
        self._timing = timing
        self._logprob = logprob
        self.version = version
        self.failure: EngineError | None = None
        self.requests: list[GenerateRequest] = []

    async def generate(self, request: GenerateRequest) -> Completion:
        """See Engine.generate. Text beyond ``max_tokens`` is cut off with finish reason LENGTH."""
        self.requests.append(request)
        if self.failure is not None:
            raise self.failure
        text = _before_stop(self._reply(request), request.sampling.stop)
        token_ids = (*map(ord, text), STOP_ID)
        reason = FinishReason.STOP
        if len(token_ids) > request.sampling.max_tokens:
            token_ids = token_ids[: request.sampling.max_tokens]
            reason = FinishReason.LENGTH
        version = self.version if request.policy_version is None else request.policy_version
        await self._tell(request, CharEncoder.decode(token_ids))
        return Completion(
            text=CharEncoder.decode(token_ids),
            prompt_token_ids=request.prompt_token_ids,
            token_ids=token_ids,
            logprobs=(self._logprob,) * len(token_ids),
            sampling=request.sampling,
            finish_reason=reason,
            versions=VersionSpan(version, version),
            timing=self._timing,
            tokens=self._tokens(CharEncoder.decode(token_ids), request.sampling),
        )

    async def _tell(self, request: GenerateRequest, text: str) -> None:
        if request.listener is None:
            return
        for word in re.findall(r"\S+\s*|\s+", text):
            request.listener(Delta(word, self._tokens(word, request.sampling)))
            await asyncio.sleep(self.pause_s)

    def _tokens(self, text: str, sampling: Sampling) -> tuple[SampledToken, ...]:
        if sampling.top_logprobs is None:
            return ()
        choices = (TokenChoice(letter, self._logprob) for letter in text)
        return tuple(SampledToken(choice, (choice,) * min(sampling.top_logprobs, 1)) for choice in choices)


def _before_stop(text: str, stops: Sequence[str]) -> str:
    return text[: min((text.find(stop) for stop in stops if stop in text), default=len(text))]


class FixedDetector:
    """Finds a language by the first of its marker words that a line holds; sure of itself, silent without a marker."""

    def __init__(self, markers: dict[str, str], confidence: float = 0.99) -> None:
        """``markers`` maps a word to the language that it gives away."""
        self._markers = dict(markers)
        self._confidence = confidence

    @property
    def labels(self) -> frozenset[str]:
        return frozenset(self._markers.values())

    def detect(self, text: str) -> Detection | None:
        """See LanguageDetector.detect."""
        words = text.lower().split()
        for marker, language in self._markers.items():
            if any(word.strip(".,!?") == marker for word in words):
                return Detection(language, self._confidence)
        return None


class FakeRanker:
    """Ranks by a function of the text; None cannot be judged. Keeps what it was asked."""

    def __init__(self, value: Callable[[str], float | None] = len) -> None:
        self._value = value
        self.asked: list[tuple[Brief, tuple[Completion, ...]]] = []

    async def rank(self, brief: Brief, completions: Sequence[Completion]) -> list[int]:
        """See Ranker.rank."""
        self.asked.append((brief, tuple(completions)))
        return best_first([self._value(completion.text) for completion in completions])


class MemoryJournal:
    """A claiming journal in memory. An episode is held out by the hash of its prompt, as in a durable journal."""

    def __init__(self, episodes: Iterable[Episode] = (), *, held_out_share: float = 0.0) -> None:
        self._episodes: dict[str, Episode] = {}
        self._held_out_share = held_out_share
        self._claimed: set[str] = set()
        self._settled: set[str] = set()
        self.failure: StoreError | None = None
        for episode in episodes:
            self._episodes[episode.id] = episode

    @property
    def episodes(self) -> tuple[Episode, ...]:
        """Everything appended, oldest first."""
        return tuple(self._episodes.values())

    @property
    def settled(self) -> frozenset[str]:
        """Ids of episodes whose claims were settled."""
        return frozenset(self._settled)

    async def append(self, episode: Episode) -> None:
        """See Journal.append. Raises ``failure`` while it is set."""
        self._check()
        self._episodes[episode.id] = episode

    async def claim(
        self, languages: Sequence[str], num_prompts: int, *, seed: int, selection: Selection | None = None
    ) -> list[Claim]:
        """See ClaimingJournal.claim. What is passed over counts as settled."""
        self._check()
        chosen, rng = selection or Selection(), random.Random(seed)
        training = [
            episode
            for episode in self._in(languages)
            if chosen.admits(episode.brief.tenant) and not self._is_held_out(episode)
        ]
        turns = deque(
            self._offers(group, chosen, rng) for group in _grouped(training, lambda episode: episode.brief.language)
        )
        claims: list[Claim] = []
        while turns and len(claims) < num_prompts:
            offers = turns.popleft()
            if (claim := next(offers, None)) is not None:
                claims.append(claim)
                turns.append(offers)
        return claims

    async def reclaim(self, handles: Sequence[str]) -> list[Claim]:
        """See ClaimingJournal.reclaim."""
        self._check()
        kept = [handle for handle in handles if handle in self._episodes]
        self._claimed.update(kept)
        return [Claim(self._episodes[handle], handle) for handle in kept]

    async def settle(self, claims: Sequence[Claim]) -> None:
        """See ClaimingJournal.settle."""
        self._check()
        handles = {claim.handle for claim in claims}
        self._claimed -= handles
        self._settled |= handles

    async def held_out(self, languages: Sequence[str], num_prompts: int, *, tenant: str | None = None) -> list[Episode]:
        """See ClaimingJournal.held_out."""
        self._check()
        held_out = [
            episode
            for episode in self._in(languages)
            if tenant in (None, episode.brief.tenant) and self._is_held_out(episode)
        ]
        by_language = _grouped(held_out, lambda episode: episode.brief.language)
        return _interleaved([_by_tenant_in_turn(group) for group in by_language])[: max(num_prompts, 0)]

    def restart(self) -> None:
        """What a crash does: claims that were never settled can be claimed again."""
        self._claimed.clear()

    def _offers(self, episodes: Sequence[Episode], selection: Selection, rng: random.Random) -> Iterator[Claim]:
        """Claims of one language, each made when it is asked for: fresh episodes, then settled ones."""
        again = [episode for episode in episodes if episode.id in self._settled - self._claimed]
        rng.shuffle(again)
        again.sort(key=lambda episode: selection.times_taken(episode.prompt_digest))
        fresh = [episode for episode in episodes if episode.id not in self._claimed | self._settled]
        for episode in _by_tenant_in_turn(fresh):
            flaw = selection.flaw_of_fresh(episode)
            if flaw is None:
                yield self._claim(episode, selection, again=False)
            else:
                selection.pass_over(flaw)
                self._settled.add(episode.id)
                again.append(episode)
        for episode in _by_tenant_in_turn(again):
            if selection.flaw_of_repeated(episode) is None:
                yield self._claim(episode, selection, again=True)

    def _claim(self, episode: Episode, selection: Selection, *, again: bool) -> Claim:
        selection.take(episode)
        self._claimed.add(episode.id)
        return Claim(episode, handle=episode.id, again=again)

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _in(self, languages: Sequence[str]) -> list[Episode]:
        return [episode for episode in self._episodes.values() if episode.brief.language in languages]

    def _is_held_out(self, episode: Episode) -> bool:
        prompt = repr(episode.prompt_token_ids).encode()
        share = int.from_bytes(hashlib.sha256(prompt).digest()[:8], "big") / 2**64
        return share < self._held_out_share


def _by_tenant_in_turn(episodes: Sequence[Episode]) -> list[Episode]:
    return _interleaved(_grouped(episodes, lambda episode: episode.brief.tenant))


def _grouped(episodes: Sequence[Episode], key: Callable[[Episode], str]) -> list[list[Episode]]:
    groups: dict[str, list[Episode]] = {}
    for episode in episodes:
        groups.setdefault(key(episode), []).append(episode)
    return [groups[name] for name in sorted(groups)]


def _interleaved(queues: Sequence[Sequence[Episode]]) -> list[Episode]:
    longest = max(map(len, queues), default=0)
    return [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]
