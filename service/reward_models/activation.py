"""Which version of a language's reward model judges: the pointer on disk and the models in memory, flipped together."""

import asyncio
from collections.abc import Callable

import structlog

from agent.errors import ModelError, RewardModelFailed
from service.reward_models.ports import LoadedModels
from service.reward_models.shelf import NONE, LanguageModels, ModelShelf

log = structlog.get_logger(__name__)

OnActive = Callable[[LanguageModels], None]


class ModelActivation:
    """Activates and rolls back, one at a time."""

    def __init__(self, shelf: ModelShelf, loaded: LoadedModels, on_active: OnActive = lambda models: None) -> None:
        """``on_active`` feeds the metrics."""
        self._shelf, self._loaded, self._on_active = shelf, loaded, on_active
        self._flipping = asyncio.Lock()

    async def activate(self, language: str, version: int) -> LanguageModels:
        """Judge by a version from now on, by none when it is 0. The pointer is as before when that fails.

        Raises:
            NotFound: there is no such version.
            Conflict: the gate rejected it.
            RewardModelFailed: it is damaged, or does not fit.
            EngineDead: the models that judge are away.
        """
        async with self._flipping:
            try:
                return await self._flip(language, version)
            except ModelError as error:
                raise RewardModelFailed(str(error)) from error

    def tell(self) -> None:
        """Tell ``on_active`` how each language stands, at the start. A damaged record is logged: serving goes on, and
        whoever lists or activates its versions gets the reason."""
        for language in self._shelf.languages():
            try:
                self._on_active(self._shelf.models(language))
            except ModelError as error:
                log.error("reward_model_damaged", language=language, reason=str(error))

    async def _flip(self, language: str, version: int) -> LanguageModels:
        if version != NONE:
            await asyncio.to_thread(self._shelf.check_accepted, language, version)
        before = self._shelf.models(language).active
        await asyncio.to_thread(self._shelf.point, language, version or None)
        try:
            await self._loaded.activate(language, version)
        except BaseException:
            self._shelf.point(language, before)
            raise
        models = self._shelf.models(language)
        self._on_active(models)
        log.info("reward_model_activated", language=language, version=version, before=before or NONE)
        return models
