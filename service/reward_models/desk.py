"""Everything that operators do with reward models: see, train, cancel, activate, roll back."""

import asyncio
from collections.abc import Callable, Sequence

from agent.errors import NotFound
from agent.language import primary_code
from service.reward_models.activation import ModelActivation
from service.reward_models.records import TrainingStatus
from service.reward_models.shelf import LanguageModels, ModelShelf
from service.reward_models.trainings import RewardTrainings, TrainingRequest


class RewardModelDesk:
    """Provides service.http.ports.RewardModelsPort."""

    def __init__(
        self,
        shelf: ModelShelf,
        activation: ModelActivation,
        trainings: RewardTrainings,
        languages: Callable[[], Sequence[str]],
    ) -> None:
        """``languages`` are those of all tenants."""
        self._shelf, self._activation, self._trainings = shelf, activation, trainings
        self._languages = languages

    async def list(self) -> Sequence[LanguageModels]:
        """Every language of a tenant or with a version, in order."""
        return [await asyncio.to_thread(self._shelf.models, language) for language in self._known()]

    async def of(self, language: str) -> LanguageModels:
        """Raises NotFound for a language that no tenant has and that has no version."""
        self._check(language)
        return await asyncio.to_thread(self._shelf.models, language)

    async def activate(self, language: str, version: int) -> LanguageModels:
        """See ModelActivation.activate."""
        self._check(language)
        return await self._activation.activate(language, version)

    async def train(self, language: str, request: TrainingRequest) -> TrainingStatus:
        """See RewardTrainings.start. Raises NotFound as `of` does."""
        self._check(language)
        return await self._trainings.start(language, request)

    async def training(self, training_id: str) -> TrainingStatus:
        """Raises NotFound."""
        return await asyncio.to_thread(self._trainings.status, training_id)

    async def trainings(self) -> Sequence[TrainingStatus]:
        """Newest first."""
        return await asyncio.to_thread(self._trainings.list)

    async def cancel(self, training_id: str) -> TrainingStatus:
        """See RewardTrainings.cancel."""
        return await self._trainings.cancel(training_id)

    async def close(self) -> None:
        """End with the node."""
        await self._trainings.close()

    def _known(self) -> Sequence[str]:
        return sorted({*map(primary_code, self._languages()), *self._shelf.languages()})

    def _check(self, language: str) -> None:
        known = self._known()
        if language not in known:
            raise NotFound(f"language must be among {', '.join(known) or 'those of a tenant'}, got {language[:40]}")
