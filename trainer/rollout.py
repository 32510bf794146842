"""Sibling rollouts: G replies per logged prompt, sampled at low priority from the candidate policy."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from agent.completion import Completion, Sampling
from agent.episode import Episode
from agent.errors import PromptTooLong
from agent.ports import Engine, GenerateRequest, Priority


class RolloutSampler:
    """Samples siblings of logged prompts. Prompts are the logged token ids, never re-tokenised."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def siblings(
        self, episodes: Sequence[Episode], *, version: int, group_size: int, sampling: Sampling, label: str
    ) -> list[tuple[Completion, ...]]:
        """One group of completions per episode, in order; an empty one for a prompt that leaves no room for a reply.

        Args:
            sampling: its seed is the first of a range; every sibling gets its own.
            label: prefix of the request ids, unique per call.

        Raises:
            EngineError: the first that a request raised; the other requests are then cancelled.
        """
        first_seed = sampling.seed or 0
        try:
            async with asyncio.TaskGroup() as tasks:
                groups = [
                    [
                        tasks.create_task(
                            self._sample(
                                episode,
                                version,
                                replace(sampling, seed=first_seed + row * group_size + column),
                                f"{label}-{row}-{column}",
                            )
                        )
                        for column in range(group_size)
                    ]
                    for row, episode in enumerate(episodes)
                ]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        completions = [[task.result() for task in group] for group in groups]
        return [tuple(sibling for sibling in group if sibling is not None) for group in completions]

    async def _sample(self, episode: Episode, version: int, sampling: Sampling, request_id: str) -> Completion | None:
        request = GenerateRequest(
            request_id=request_id,
            prompt_token_ids=episode.completions[episode.served].prompt_token_ids,
            sampling=sampling,
            priority=Priority.ROLLOUT,
            cache_scope=episode.brief.tenant,
            policy_version=version,
        )
        try:
            return await self._engine.generate(request)
        except PromptTooLong:
            return None
