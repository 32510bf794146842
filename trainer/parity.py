"""The parity probe: do engine and trainer agree about a candidate?

Fixed multilingual prompts are continued by the engine; the trainer scores the same tokens. A wrong adapter slot, a
scale applied twice or a stale weight shows as a large difference, while rounding shows as a small one. The same shows
whether a fresh engine computes its model at all.
"""

import asyncio
from collections.abc import Sequence

from agent.completion import BASE_VERSION, Completion, Sampling
from agent.errors import ModelError, ParityFailed
from agent.ports import Engine, GenerateRequest, Priority, PromptEncoder
from trainer.ports import TrainerPort
from trainer.records import ParityReport

PROBE_TEXTS = (
    "All human beings are born free and equal.",
    "Alle Menschen sind frei und gleich geboren.",
    "Wszyscy ludzie rodzą się wolni i równi.",
    "すべての人間は自由であり、平等である。",
    "सभी मनुष्य स्वतंत्र और समान जन्म लेते हैं।",
    "يولد جميع الناس أحرارا متساوين.",
)
_PROBE_TOKENS = 12
_LONGEST_TEXTS = 5
"""Probe texts in the longest prompt of a start check."""
_PER_WAVE, _BETWEEN_WAVES_S = 16, 0.02
"""Prompts of a start check come in while those before are answered: graphs have been seen to fail in steps of both
kinds, and in large ones, alone."""
WRONG_MEAN = 0.5
"""Nats. Rounding in 16 bits stays below 0.1; an engine whose attention was wrong was off by 7."""


class ParityProbe:
    """Compares log-probabilities of sampled tokens between engine and trainer."""

    def __init__(self, engine: Engine, trainer: TrainerPort, encoder: PromptEncoder, *, max_mean: float) -> None:
        self._engine, self._trainer = engine, trainer
        self._prompts = [encoder.encode("", text) for text in PROBE_TEXTS]
        self._max_mean = max_mean

    async def check(self, version: int) -> ParityReport:
        """Probe an installed candidate that is also the trainer's newest.

        Raises:
            ParityFailed: the mean difference exceeds the bound, or a logprob is not finite.
        """
        report = await self.measure(version)
        if not report.within(self._max_mean):
            raise ParityFailed(
                f"mean |engine logprob - trainer logprob| must be at most {self._max_mean}, got {report.mean:.4g} "
                f"over {report.num_tokens} tokens of version {version}"
            )
        return report

    async def check_base(self, num_prompts: int, *, longest: int) -> ParityReport:
        """Probe the base model in a fresh engine: are its kernels and graphs right on this machine?

        Args:
            num_prompts: of different lengths, a few at a time.
            longest: of a prompt, in tokens.

        Raises:
            ModelError: they are not; what it would answer has little to do with the model.
        """
        prompts = [self._mixed_prompt(number)[:longest] for number in range(num_prompts)]
        waves = [prompts[start : start + _PER_WAVE] for start in range(0, len(prompts), _PER_WAVE)]
        report = await self._measure(waves, BASE_VERSION)
        if not report.within(WRONG_MEAN):
            raise ModelError(
                f"the engine computes another model than its weights are: the log-probabilities of {report.num_tokens} "
                f"tokens differ from the learner's by {report.mean:.3g} nats in the mean, of which rounding makes "
                f"{WRONG_MEAN} at most. "
                'Set engine.cuda_graphs = "piecewise", or engine.enforce_eager = true'
            )
        return report

    async def measure(self, version: int) -> ParityReport:
        """Engine against trainer, whatever comes of it; not finite where a logprob is not."""
        return await self._measure([self._prompts], version)

    def _mixed_prompt(self, number: int) -> tuple[int, ...]:
        """Some of the texts one behind the other: another beginning and another length for each number."""
        texts = [self._prompts[(number + i) % len(self._prompts)] for i in range(1 + number % _LONGEST_TEXTS)]
        return tuple(token for text in texts for token in text)

    async def _measure(self, waves: Sequence[Sequence[tuple[int, ...]]], version: int) -> ParityReport:
        asked: list[asyncio.Task[Completion]] = []
        for wave in waves:
            asked += [asyncio.create_task(self._continue(row, version, len(asked) + i)) for i, row in enumerate(wave)]
            if len(waves) > 1:
                await asyncio.sleep(_BETWEEN_WAVES_S)
        completions = await asyncio.gather(*asked)
        trainer = await self._trainer.logprobs(
            [c.prompt_token_ids for c in completions], [c.token_ids for c in completions]
        )
        gaps = [
            abs(ours - theirs)
            for completion, row in zip(completions, trainer, strict=True)
            for ours, theirs in zip(row, completion.logprobs, strict=True)
        ]
        return ParityReport(num_tokens=len(gaps), mean=sum(gaps) / len(gaps), max=max(gaps))

    async def _continue(self, prompt: tuple[int, ...], version: int, seed: int) -> Completion:
        request = GenerateRequest(
            request_id=f"parity-v{version}-{seed}",
            prompt_token_ids=prompt,
            sampling=Sampling(max_tokens=_PROBE_TOKENS, temperature=1.0, seed=seed),
            priority=Priority.PROBE,
            cache_scope="parity",
            policy_version=version,
        )
        return await self._engine.generate(request)
