"""How often the gate blocks a candidate that is worse in one language of ten, and one that is equal.

    UDHR sentences ─► replies of a scripted engine ─► trainer.evaluation.Evaluator with the product's panel, rules and
    detectors ─► verdicts of many comparisons ─► rates with Wilson intervals

What is scripted is what a policy says, nothing else. Both policies of a comparison draw every reply anew from the same
150 texts of its language: one to three sentences, now and then with a slip (an English sentence, a refusal, a sentence
said twice). The planted candidate answers a share of its Polish prompts with English texts. As texts come again, what
the language contracts said of them is remembered: their detectors answer the same text alike every time.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice, product
from pathlib import Path

from rich.console import Console

from agent.allowance import NOTHING, Allowance
from agent.brief import Brief, Kind
from agent.completion import Completion, FinishReason, Sampling, VersionSpan
from agent.config import LanguageSettings, TenantSettings
from agent.contract import LanguageContract
from agent.episode import Episode, PromptRef
from agent.fakes import MemoryJournal
from agent.language import FastTextDetector, LanguageDetector
from agent.ports import GenerateRequest
from agent.sentences import split_sentences
from agent.verdict import LanguageVerdict, Verdict
from rewards.agreement import Agreement
from rewards.config import RewardsConfig
from rewards.panel import Panel, build_panel
from rewards.refusals import PHRASES
from rewards.second_opinion import LangdetectDetector, LangidDetector
from rewards.training.held_out import wilson_interval
from service.bench.learning.prompts import read_articles, read_wordings
from service.bench.report import Report, table, written
from trainer.config import GateConfig
from trainer.evaluation import Evaluator
from trainer.fakes import FakeAdmission
from trainer.records import Evaluation
from trainer.rollout import RolloutSampler

LANGUAGES = ("ar", "cs", "de", "es", "fr", "it", "ja", "pl", "ru", "zh")
PLANTED = "pl"
BASELINE, CANDIDATE = 1, 2
_TENANT = "bench"
_NUM_TEXTS = 150
_MAX_SENTENCES = 3
_SENTENCE_BYTES = range(25, 240)
_MAX_WORDS = 60
_FOREIGN, _REFUSED, _REPEATED = 0.02, 0.01, 0.03
"""How often any policy slips: a foreign sentence per sentence, a refusal per reply, a repeated sentence per reply."""
_ROOM = 20_000


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with its 95 % Wilson interval."""

    hits: int
    trials: int

    @property
    def bounds(self) -> tuple[float, float]:
        """Lower and upper end."""
        return wilson_interval(self.hits, self.trials)

    def __str__(self) -> str:
        low, high = self.bounds
        return f"{self.hits}/{self.trials} = {self.hits / self.trials:.1%} ({low:.1%} to {high:.1%})"


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Verdicts of comparisons of one kind."""

    strength: float
    """Share of the planted language's prompts that the candidate answers in English."""
    failed: Rate
    elsewhere: int
    """Of the failed ones, those in which a language failed that nothing was planted in."""
    undetermined: Rate
    """Not failed, with a language in which too little is shown either way."""
    published: Rate
    """By the configuration that was measured."""


class RememberedContract(LanguageContract):
    """A contract that judges a text once; right for detectors without chance."""

    def __init__(self, detector: LanguageDetector) -> None:
        super().__init__(detector)
        self._known: dict[tuple[str, str, tuple[str, ...], Allowance], LanguageVerdict] = {}

    def judge(
        self, text: str, wanted: str, brand_terms: Sequence[str] = (), allowance: Allowance = NOTHING
    ) -> LanguageVerdict:
        """See LanguageContract.judge."""
        key = (text, wanted, tuple(brand_terms), allowance)
        if key not in self._known:
            self._known[key] = super().judge(text, wanted, brand_terms, allowance)
        return self._known[key]


class GateTrials:
    """Comparisons of scripted policies by the product's gate."""

    def __init__(self, config: GateConfig, languages: Sequence[str] = LANGUAGES) -> None:
        self._config, self._languages = config, tuple(languages)
        english = _sentences("en")
        self._texts = {code: _texts(code, _sentences(code), english) for code in {*languages, "en"}}
        tenant = TenantSettings(id=_TENANT, languages={code: LanguageSettings() for code in languages})
        self._panel: Panel = build_panel(RewardsConfig(), [tenant], RememberedContract(FastTextDetector()))
        self._judge = Agreement(RememberedContract(LangdetectDetector()), RememberedContract(LangidDetector()))
        self._episodes = [
            _episode(row, number, brief)
            for row, code in enumerate(languages)
            for number, brief in enumerate(self._briefs(code))
        ]

    async def compare(self, trial: int, strength: float) -> Evaluation:
        """One exam of one candidate; every trial has its own replies.

        Args:
            strength: share of the planted language's prompts that the candidate answers in English, in [0, 1].
        """
        evaluator = Evaluator(
            journal=MemoryJournal(self._episodes, held_out_share=1.0),
            sampler=RolloutSampler(ScriptedEngine(partial(self._reply, trial, strength))),
            panel=self._panel,
            admission=FakeAdmission(),
            second_opinion=self._judge,
            temperature=1.0,
            config=self._config,
        )
        return await evaluator.compare(
            CANDIDATE, BASELINE, languages=self._languages, max_tokens=_ROOM, seed=trial * 100_000
        )

    async def outcomes(self, strength: float, num_trials: int, *, first: int = 0) -> Outcomes:
        """The verdicts of many comparisons of one strength, the trials numbered from ``first``."""
        seen: Counter[str] = Counter()
        for trial in range(first, first + num_trials):
            evaluation = await self.compare(trial, strength)
            report = evaluation.report
            if report is None:
                raise TypeError("an evaluator's evaluation has a report")
            seen[report.verdict.value] += 1
            seen["published"] += not evaluation.rejected
            seen["elsewhere"] += bool(report.failed.keys() - ({PLANTED} if strength > 0 else set()))
        return Outcomes(
            strength=strength,
            failed=Rate(seen["failed"], num_trials),
            elsewhere=seen["elsewhere"],
            undetermined=Rate(seen["undetermined"], num_trials),
            published=Rate(seen["published"], num_trials),
        )

    def _briefs(self, language: str) -> list[Brief]:
        wording = read_wordings().get(language) or read_wordings()["en"]
        asked = product(wording.topics, wording.forms, wording.tones)
        return [
            Brief(
                _TENANT,
                Kind.CREATE,
                language,
                instructions=wording.write.format(form=form, topic=topic),
                tone=tone,
                max_words=_MAX_WORDS,
            )
            for topic, form, tone in islice(asked, self._config.num_prompts)
        ]

    def _reply(self, trial: int, strength: float, request: GenerateRequest) -> str:
        """What a version answers: the same for the same trial, version, prompt and seed."""
        row, _ = request.prompt_token_ids
        version, language = request.policy_version, self._languages[row]
        chance = random.Random(f"{trial} {version} {request.prompt_token_ids} {request.sampling.seed}")
        if language == PLANTED and version == CANDIDATE and chance.random() < strength:
            language = "en"
        return chance.choice(self._texts[language])


class ScriptedEngine:
    """agent.ports.Engine whose completions have a token for each word."""

    def __init__(self, reply: Callable[[GenerateRequest], str]) -> None:
        self._reply = reply

    async def generate(self, request: GenerateRequest) -> Completion:
        """See Engine.generate."""
        text = self._reply(request)
        num_tokens = len(text.split()) + 1
        version = BASELINE if request.policy_version is None else request.policy_version
        return _completion(request.prompt_token_ids, text, num_tokens, request.sampling, version)


def _completion(prompt: tuple[int, ...], text: str, num_tokens: int, sampling: Sampling, version: int) -> Completion:
    return Completion(
        text=text,
        prompt_token_ids=prompt,
        token_ids=(0,) * num_tokens,
        logprobs=(-1.0,) * num_tokens,
        sampling=sampling,
        finish_reason=FinishReason.STOP,
        versions=VersionSpan(version, version),
    )


def _texts(language: str, sentences: Sequence[str], english: Sequence[str]) -> list[str]:
    """What policies say in a language."""
    chance = random.Random(language)
    return [_text(language, sentences, english, chance) for _ in range(_NUM_TEXTS)]


def _text(language: str, sentences: Sequence[str], english: Sequence[str], chance: random.Random) -> str:
    if chance.random() < _REFUSED:
        return chance.choice(PHRASES[language]).capitalize() + "."
    chosen = chance.sample(sentences, chance.randint(1, _MAX_SENTENCES))
    chosen = [chance.choice(english) if chance.random() < _FOREIGN else sentence for sentence in chosen]
    if chance.random() < _REPEATED:
        chosen.append(chosen[0])
    return ("" if language in ("ja", "zh") else " ").join(chosen)


def _sentences(language: str) -> list[str]:
    """Sentences that stand alone."""
    found = (text[span.start : span.end] for text in read_articles()[language] for span in split_sentences(text))
    return [sentence for sentence in found if len(sentence.encode()) in _SENTENCE_BYTES]


def _episode(row: int, number: int, brief: Brief) -> Episode:
    """A held-out request; its prompt is the language's place and its number, which is all that the script needs."""
    prompt = (row, number)
    served = _completion(prompt, "", 0, Sampling(max_tokens=_ROOM), BASELINE)
    return Episode(
        id=f"{brief.language}-{number}",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        brief=brief,
        prompt=PromptRef("bench", brief.kind.value, brief.language),
        completions=(served,),
        served=0,
        verdict=LanguageVerdict(brief.language, Verdict.UNDETERMINED, None, ()),
    )


@dataclass(frozen=True, slots=True)
class GateOptions:
    """What `coloq bench gate` runs."""

    out: Path
    config: GateConfig
    num_equal: int
    num_planted: int
    strengths: tuple[float, ...]
    """Shares of the planted language's prompts that are answered in English."""
    first: int
    """Number of the first trial, which seeds its replies."""


async def bench_gate(options: GateOptions, console: Console) -> None:
    """Compare, print a table of rates and write them as JSON."""
    configuration = {**options.config.model_dump(mode="json"), "languages": LANGUAGES, "first": options.first}
    with written(Report("gate", options.out, console, configuration)) as report:
        report.say("loading the detectors")
        trials = GateTrials(options.config)
        found = []
        for strength, count in ((0.0, options.num_equal), *((item, options.num_planted) for item in options.strengths)):
            if count:
                found.append(await trials.outcomes(strength, count, first=options.first))
                report.add("outcomes", found[-1])
                report.say(f"{_kind(strength)}: {found[-1].failed} blocked as worse")
        heads = ("candidate", "blocked as worse", "of these elsewhere", "undetermined", "published")
        console.print(table("Gate, ten languages", heads, [_row(outcomes) for outcomes in found]))


def _kind(strength: float) -> str:
    return "equal" if strength == 0 else f"{PLANTED} in English, {strength:.0%} of prompts"


def _row(row: Outcomes) -> tuple[str, ...]:
    return (
        _kind(row.strength),
        str(row.failed),
        str(row.elsewhere),
        str(row.undetermined),
        str(row.published),
    )
