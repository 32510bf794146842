"""Reward models of a node: held by the engine process, asked from the panel's threads, changed while the node serves.

    panel's thread ─► raw_scores ─► event loop ─► engine process: coloq_submit … coloq_poll ─► scores
    operator       ─► activate(de, 3) ─► load v3 ─► replies in German are judged by v3 from the next call on
    fresh engine   ─► prepare ─► open every backbone, load every active version

A backbone that cannot be opened, or an active version that cannot be loaded, leaves replies ungradable with the reason;
the node serves on.
"""

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path

import structlog

from agent.brief import Brief
from agent.errors import ColoqError, EngineDead, ModelError, TrainerFailed
from rewards.config import RewardModelConfig
from rewards.models.calibration import Observation, fit_calibration
from rewards.models.encoding import RewardEncoder
from rewards.models.ensemble import ModelEnsemble
from rewards.models.judge import Broken, Judge, Standing
from rewards.models.manifest import (
    RewardManifest,
    active_version,
    languages,
    read_calibrations,
    read_manifest,
    version_folder,
    write_calibration,
)
from rewards.score import Ungradable
from rewards.words import count_words
from service.config import NodeConfig
from service.learner_calls import WorkerCalls, carry_out
from service.reward_backbones import BackboneOrder, HeldBackbone, backbone_orders, encoder_of
from trainer import messages

log = structlog.get_logger(__name__)

FOLDER = "rewards"
"""Of the versions, in the node's data folder."""


class EngineRewards:
    """Implements rewards.models.ports.RawScorer. Made, prepared and changed on the event loop."""

    def __init__(self, engine: WorkerCalls, root: Path) -> None:
        """``root`` holds the versions by language (rewards.models.manifest)."""
        self._engine, self._root = engine, root
        self._loop = asyncio.get_running_loop()
        self._backbones: dict[str, HeldBackbone] = {}
        self._changing = asyncio.Lock()
        self.parts: dict[str, ModelEnsemble] = {}
        """What the panel asks, by the parts' names."""

    def add(self, name: str, config: RewardModelConfig, orders: Sequence[tuple[BackboneOrder, RewardEncoder]]) -> None:
        """Add a part whose judges are these backbones."""
        judges = []
        for order, encoder in orders:
            backbone = self._backbones.setdefault(order.name, HeldBackbone(order))
            if config.batch_tokens is not None:
                backbone.batch_tokens = max(backbone.batch_tokens or 0, config.batch_tokens)
            judge = Judge(order.name, encoder, self, max_tokens=min(config.max_tokens, encoder.max_tokens))
            backbone.judges.append(judge)
            judges.append(judge)
        self.parts[name] = ModelEnsemble(
            name,
            judges,
            penalty=config.penalty,
            languages=config.languages,
            ranking_timeout_s=config.ranking_timeout_s,
        )

    async def prepare(self) -> None:
        """Open every backbone in a fresh engine process and load the active version of each language.

        Raises:
            EngineDead: it is gone again.
        """
        async with self._changing:
            for backbone in self._backbones.values():
                await self._open(backbone)
            if self._backbones:
                for language in await asyncio.to_thread(languages, self._root):
                    await self._load_active(language)
            for backbone in self._backbones.values():
                backbone.seat()

    async def activate(self, language: str, version: int) -> None:
        """Judge a language by a written version from now on; by none of its own when it is 0.

        Raises:
            ModelError: the version cannot be read, is damaged, or its backbone is not configured; the one before still
                judges.
            EngineDead: the engine process is gone; a new one loads what the pointer names.
        """
        async with self._changing:
            manifest = None
            if version:
                manifest = await asyncio.to_thread(read_manifest, version_folder(self._root, language, version))
                await self._load(language, manifest)
            for backbone in self._backbones.values():
                if manifest is None or backbone.order.configured != manifest.backbone:
                    backbone.by_language.pop(language, None)
                backbone.seat()
            log.info("reward_model_activated", language=language, version=version)

    def uncalibrated(self, wanted: Iterable[str]) -> list[str]:
        """Languages among those wanted that an off-the-shelf scorer judges by the scale that it came with."""
        backbones = self._backbones.values()
        return [language for language in wanted if any(item.needs_calibration(language) for item in backbones)]

    async def calibrate(self, language: str, replies: Sequence[tuple[Brief, str]]) -> None:
        """Give off-the-shelf scorers their scale for a language, from replies that were served; kept across restarts.

        Raises:
            ModelError: fewer than two of them could be scored, or the calibration could not be written.
            TrainerFailed, EngineDead: the models cannot be reached, or failed.
        """
        async with self._changing:
            for backbone in self._backbones.values():
                if backbone.needs_calibration(language):
                    await self._calibrate(backbone, language, replies)

    async def _calibrate(self, backbone: HeldBackbone, language: str, replies: Sequence[tuple[Brief, str]]) -> None:
        name = backbone.order.configured
        raws = await asyncio.to_thread(backbone.judges[0].raw_scores, replies, Standing(name))
        observations = [
            Observation(raw, brief.kind.value, count_words(text))
            for (brief, text), raw in zip(replies, raws, strict=True)
            if not isinstance(raw, Ungradable)
        ]
        try:
            calibration = fit_calibration(observations)
        except ValueError as error:
            raise ModelError(f"{name} cannot be calibrated for {language}: {error}") from error
        await asyncio.to_thread(write_calibration, self._root, language, name, calibration)
        backbone.own_head[language] = Standing(name, None, calibration)
        backbone.seat()
        log.info(
            "reward_model_calibrated",
            backbone=name,
            language=language,
            num_replies=len(observations),
            center=round(calibration.center, 4),
            scale=round(calibration.scale, 4),
        )

    def raw_scores(
        self, backbone: str, adapter: str | None, rows: Sequence[Sequence[int]], *, within_s: float | None = None
    ) -> list[float]:
        """See RawScorer.raw_scores. For any thread but the event loop's, which it would wait for."""
        asked = asyncio.run_coroutine_threadsafe(self._scores(backbone, adapter, rows, within_s), self._loop)
        # Not cancelled when it is late: the engine process answers then, too, and its answer must be taken away.
        return asked.result(within_s)

    async def _scores(
        self, backbone: str, adapter: str | None, rows: Sequence[Sequence[int]], within_s: float | None
    ) -> list[float]:
        batch_tokens = self._backbones[backbone].batch_tokens
        command = messages.ScoreReplies(backbone, adapter, [list(row) for row in rows], batch_tokens, within_s)
        done = await carry_out(self._engine, command)
        if done.scores is None or len(done.scores) != len(rows):
            raise TrainerFailed(f"the learner must score every reply, got {done.scores and len(done.scores)}")
        return done.scores

    async def _open(self, backbone: HeldBackbone) -> None:
        order = backbone.order
        backbone.facts, backbone.failure = None, None
        backbone.own_head.clear()
        backbone.by_language.clear()
        backbone.loaded.clear()
        try:
            command = messages.OpenBackbone(order.name, order.source, order.shares, order.device)
            backbone.facts = (await carry_out(self._engine, command)).backbone
        except EngineDead:
            raise
        except ColoqError as error:
            backbone.failure = str(error)
            log.error("reward_backbone_not_loaded", backbone=order.configured, reason=str(error))
            return
        facts = backbone.facts
        if facts is None:
            return
        log.info(
            "reward_backbone_opened",
            backbone=order.configured,
            device=order.device,
            shares_weights=order.shares,
            size_bytes=facts.size_bytes,
            has_head=facts.has_head,
        )
        if facts.max_positions is not None:
            for judge in backbone.judges:
                judge.max_tokens = min(judge.max_tokens, facts.max_positions)
        if facts.has_head:
            backbone.own_head = await asyncio.to_thread(_own_head, self._root, order.configured)

    async def _load_active(self, language: str) -> None:
        """Load what the pointer names. What cannot be loaded is logged, and breaks the language on its backbone."""
        manifest = None
        try:
            version = await asyncio.to_thread(active_version, self._root, language)
            if version is None:
                return
            manifest = await asyncio.to_thread(read_manifest, version_folder(self._root, language, version))
            await self._load(language, manifest)
        except EngineDead:
            raise
        except ColoqError as error:
            log.error("reward_model_not_loaded", language=language, reason=str(error))
            for backbone in self._backbones.values():
                if manifest is None or manifest.backbone == backbone.order.configured:
                    backbone.by_language[language] = Broken(str(error))

    async def _load(self, language: str, manifest: RewardManifest) -> None:
        """Have every backbone of that name load a version, if it is not there, and judge by it.

        Raises:
            ModelError: none has that name, or it could not be opened; the version is of another language or damaged.
        """
        if manifest.language != language:
            raise ModelError(f"reward model v{manifest.version} must be of {language}, it is of {manifest.language}")
        backbones = [item for item in self._backbones.values() if item.order.configured == manifest.backbone]
        if not backbones:
            raise ModelError(
                f"reward model v{manifest.version} of {language} needs the backbone {manifest.backbone}; "
                f"rewards.models has {', '.join(sorted({item.order.configured for item in self._backbones.values()}))}"
            )
        adapter = f"{language}_v{manifest.version}"
        for backbone in backbones:
            await self._load_on(backbone, language, adapter, manifest)
        for backbone in backbones:
            revision = f"{manifest.backbone}:{language}-v{manifest.version}"
            backbone.by_language[language] = Standing(revision, adapter, manifest.calibration)

    async def _load_on(self, backbone: HeldBackbone, language: str, adapter: str, manifest: RewardManifest) -> None:
        """Also forgets adapters of the language but for the one that judges until now."""
        if backbone.failure is not None:
            raise ModelError(backbone.failure)
        name = backbone.order.name
        loaded = backbone.loaded.setdefault(language, [])
        if adapter not in loaded:
            folder = version_folder(self._root, language, manifest.version)
            try:
                await carry_out(self._engine, messages.LoadReward(name, adapter, str(folder)))
            except TrainerFailed as error:
                raise ModelError(str(error)) from error
        judging = backbone.by_language.get(language)
        kept = judging.adapter if isinstance(judging, Standing) else None
        for other in [item for item in loaded if item not in (adapter, kept)]:
            await carry_out(self._engine, messages.DropReward(name, other))
        backbone.loaded[language] = [item for item in (kept, adapter) if item is not None]


async def load_rewards(config: NodeConfig, served: str, root: Path, engine: WorkerCalls) -> EngineRewards:
    """The reward models that a configuration asks for, with their tokenizers; nothing is sent to the engine yet.

    Args:
        served: the folder or Hugging Face id behind ``engine.model``.

    Raises:
        InvalidConfig: a model or its tokenizer is not there.
    """
    rewards = EngineRewards(engine, root)
    encoders: dict[str, RewardEncoder] = {}
    for part, settings in config.rewards.models.items():
        orders = await asyncio.to_thread(backbone_orders, config, part, served)
        for order in orders:
            if order.source not in encoders:
                encoders[order.source] = await asyncio.to_thread(encoder_of, part, order.source)
        rewards.add(part, settings, [(order, encoders[order.source]) for order in orders])
    return rewards


def _own_head(root: Path, scorer: str) -> dict[str, Standing]:
    """Languages for which a calibration of the scorer was kept."""
    found: dict[str, Standing] = {}
    for language in languages(root):
        try:
            calibration = read_calibrations(root, language).get(scorer)
        except ModelError as error:
            log.error("reward_calibration_not_read", language=language, reason=str(error))
            continue
        if calibration is not None:
            found[language] = Standing(scorer, None, calibration)
    return found
