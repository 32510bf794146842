"""Sibling rollouts: G replies per logged prompt, sampled at low priority from the candidate policy."""

from collections.abc import Sequence
from dataclasses import replace

from agent.completion import Completion, Sampling
from agent.episode import Episode
from agent.errors import PromptTooLong
from agent.ports import Engine, GenerateRequest, Priority
from agent.siblings import siblings, together


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
        return await together(
            [
                self._group(
                    episode,
                    version,
                    replace(sampling, seed=first_seed + row * group_size),
                    f"{label}-{row}",
                    group_size,
                )
                for row, episode in enumerate(episodes)
            ]
        )

    async def _group(
        self, episode: Episode, version: int, sampling: Sampling, request_id: str, group_size: int
    ) -> tuple[Completion, ...]:
        request = GenerateRequest(
            request_id=request_id,
            prompt_token_ids=episode.prompt_token_ids,
            sampling=sampling,
            priority=Priority.ROLLOUT,
            cache_scope=episode.brief.tenant,
            policy_version=version,
        )
        try:
            return await siblings(self._engine, request, group_size)
        except PromptTooLong:
            return ()
