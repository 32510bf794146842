"""Reward models behind the engine: from the panel's threads to the desk and back, versions that come and go."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch

from agent.brief import Brief, Kind
from agent.completion import FinishReason
from agent.errors import EngineDead, EngineError, InvalidConfig, ModelError, TrainerFailed
from rewards.config import RewardModelConfig, RewardsConfig
from rewards.models.backbone import Backbone, load_classifier
from rewards.models.calibration import Calibration
from rewards.models.encoding import RewardEncoder
from rewards.models.manifest import WEIGHTS, set_active_version
from rewards.score import Sample, Score, Ungradable
from service.config import EngineConfig, NodeConfig
from service.engine_rewards import EngineRewards, load_rewards
from service.reward_backbones import backbone_orders
from tests.tiny_model import save_tiny_llama
from tests.tiny_reward import save_tiny_adapter, save_tiny_scorer
from trainer import messages
from trainer.config import TuningConfig
from trainer.lanes import open_lanes
from trainer.pacer import Pacer
from trainer.reward_desk import RewardDesk

CPU = torch.device("cpu")


class Engine:
    """The engine process without an engine: commands go to a desk and are carried out when they are asked for."""

    def __init__(self) -> None:
        self.restart()
        self.failure: Exception | None = None
        self.commands: list[messages.Command] = []

    def restart(self) -> None:
        """A new process holds nothing."""
        self.desk = RewardDesk(open_lanes(CPU), Pacer((), "a CPU"), CPU)
        self.answers: dict[int, messages.Answer] = {}

    async def answered(self, ticket: int, within_s: float) -> None:
        """Every answer is there at once."""

    async def call(self, method: str, *args: Any) -> Any:
        if self.failure is not None:
            raise self.failure
        if method == "coloq_poll":
            answer = self.answers.pop(args[0], None)
            return None if answer is None else messages.encode(answer)
        command = messages.decode_command(args[0])
        self.commands.append(command)
        ticket = len(self.commands)
        if isinstance(command, messages.ScoreReplies):
            self.desk.put(command, lambda answer: self.answers.__setitem__(ticket, answer))
            self.desk.finish_one()
        else:
            self.answers[ticket] = self._carried_out(command)
        return ticket

    def _carried_out(self, command: messages.Command) -> messages.Answer:
        try:
            if isinstance(command, messages.OpenBackbone):
                return messages.Done(backbone=self.desk.open(command))
            if isinstance(command, messages.LoadReward):
                self.desk.load(command)
            if isinstance(command, messages.DropReward):
                self.desk.drop(command)
            return messages.Done()
        except ModelError as error:
            return messages.Failed(str(error))


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_scorer(tmp_path_factory.mktemp("scorer"))


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("model"), hidden_size=64, num_layers=1)


@pytest.fixture
def engine() -> Engine:
    return Engine()


def _sample(text: str, language: str = "de") -> Sample:
    brief = Brief("acme", Kind.CREATE, language, instructions="Schreibe über Kaffee.")
    return Sample(brief, text, FinishReason.STOP, num_tokens=3)


async def _rewards(engine: Engine, root: Path, model: Path, **settings: Any) -> EngineRewards:
    config = NodeConfig(
        engine=EngineConfig(model="served"),
        rewards=RewardsConfig(models={"taste": RewardModelConfig(model=str(model), **settings)}),
    )
    rewards = await load_rewards(config, "served", root, engine)
    await rewards.prepare()
    return rewards


async def _judged(rewards: EngineRewards, *samples: Sample) -> list[Score | Ungradable | None]:
    return await asyncio.to_thread(rewards.parts["taste"].score, samples)


async def test_an_off_the_shelf_scorer_judges_every_language(engine: Engine, scorer: Path, tmp_path: Path) -> None:
    """Its own head gives tanh(raw / 2), as transformers computes the raw score."""
    rewards = await _rewards(engine, tmp_path, scorer)
    sample = _sample("Kaffee am Morgen.", "pl")
    (answer,) = await _judged(rewards, sample)
    encoder = RewardEncoder.load(str(scorer))
    row = encoder.encode(sample.brief, sample.text)
    (raw,) = Backbone(load_classifier(str(scorer), encoder.tokenizer)).scores([row], None)
    assert isinstance(answer, Score)
    assert answer.value == pytest.approx(torch.tanh(torch.tensor(raw / 2)).item(), abs=1e-5)
    assert answer.judge == f"taste@{scorer}"


async def test_a_language_model_judges_the_languages_that_it_was_trained_for(
    engine: Engine, language_model: Path, tmp_path: Path
) -> None:
    """German has an active version, Polish a version that is not active: its part is absent."""
    save_tiny_adapter(tmp_path, "de", language_model, version=2)
    save_tiny_adapter(tmp_path, "pl", language_model)
    set_active_version(tmp_path, "de", 2)
    rewards = await _rewards(engine, tmp_path, language_model)
    german, polish = await _judged(rewards, _sample("gut"), _sample("gut", "pl"))
    assert isinstance(german, Score)
    assert german.judge == f"taste@{language_model}:de-v2"
    assert polish is None


async def test_another_version_judges_from_the_next_reply_on(
    engine: Engine, language_model: Path, tmp_path: Path
) -> None:
    """Activation, rollback and deactivation need no restart; a rollback finds the version still loaded."""
    calibration = Calibration(0.25, 3.0)
    for version in (1, 2):
        save_tiny_adapter(tmp_path, "de", language_model, version=version, seed=version, calibration=calibration)
    rewards = await _rewards(engine, tmp_path, language_model)
    assert await _judged(rewards, _sample("gut")) == [None]
    await rewards.activate("de", 1)
    first = await _judged(rewards, _sample("gut"))
    await rewards.activate("de", 2)
    second = await _judged(rewards, _sample("gut"))
    assert first != second
    num_commands = len(engine.commands)
    await rewards.activate("de", 1)
    assert engine.commands[num_commands:] == []
    assert await _judged(rewards, _sample("gut")) == first
    await rewards.activate("de", 0)
    assert await _judged(rewards, _sample("gut")) == [None]


async def test_the_engine_holds_two_versions_of_a_language_at_the_most(
    engine: Engine, language_model: Path, tmp_path: Path
) -> None:
    """The third drops the first: a thread may be on its way to the second."""
    for version in (1, 2, 3):
        save_tiny_adapter(tmp_path, "de", language_model, version=version)
    rewards = await _rewards(engine, tmp_path, language_model)
    for version in (1, 2, 3):
        await rewards.activate("de", version)
    dropped = [item.adapter for item in engine.commands if isinstance(item, messages.DropReward)]
    assert dropped == ["de_v1"]


async def test_a_version_that_cannot_be_loaded_leaves_the_one_before(
    engine: Engine, language_model: Path, scorer: Path, tmp_path: Path
) -> None:
    """A damaged file, a version that is not there, another backbone: each is refused with its reason."""
    for version in (1, 2):
        folder = save_tiny_adapter(tmp_path, "de", language_model, version=version)
    (folder / WEIGHTS).write_bytes(b"damaged")
    save_tiny_adapter(tmp_path, "de", scorer, version=3)
    rewards = await _rewards(engine, tmp_path, language_model)
    await rewards.activate("de", 1)
    before = await _judged(rewards, _sample("gut"))
    for version, reason in ((2, "must have sha256"), (9, "no readable manifest"), (3, "needs the backbone")):
        with pytest.raises(ModelError, match=reason):
            await rewards.activate("de", version)
    assert await _judged(rewards, _sample("gut")) == before


async def test_a_new_engine_process_is_given_the_models_again(
    engine: Engine, language_model: Path, tmp_path: Path
) -> None:
    """After a restart the active version is loaded anew and scores as before."""
    save_tiny_adapter(tmp_path, "de", language_model)
    set_active_version(tmp_path, "de", 1)
    rewards = await _rewards(engine, tmp_path, language_model)
    before = await _judged(rewards, _sample("gut"))
    engine.restart()
    await rewards.prepare()
    assert await _judged(rewards, _sample("gut")) == before


async def test_an_active_version_that_is_damaged_makes_its_language_ungradable(
    engine: Engine, language_model: Path, tmp_path: Path
) -> None:
    """The node starts; German is not silently judged by the other parts alone."""
    folder = save_tiny_adapter(tmp_path, "de", language_model)
    set_active_version(tmp_path, "de", 1)
    (folder / WEIGHTS).write_bytes(b"damaged")
    rewards = await _rewards(engine, tmp_path, language_model)
    german, polish = await _judged(rewards, _sample("gut"), _sample("gut", "pl"))
    assert isinstance(german, Ungradable)
    assert "must have sha256" in german.reason
    assert polish is None


async def test_a_backbone_that_cannot_be_opened_makes_its_part_ungradable(
    engine: Engine, scorer: Path, tmp_path: Path
) -> None:
    """Its weights are gone after the node's start."""
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((scorer / name).read_bytes())
    rewards = await _rewards(engine, tmp_path / "rewards", tmp_path)
    (answer,) = await _judged(rewards, _sample("gut"))
    assert isinstance(answer, Ungradable)
    assert "cannot be loaded as a scorer" in answer.reason


async def test_the_loop_goes_on_while_a_thread_waits(engine: Engine, scorer: Path, tmp_path: Path) -> None:
    """A late judge holds the thread that asks, for its time, and nobody else; its answer is taken away later."""
    rewards = await _rewards(engine, tmp_path, scorer, ranking_timeout_s=0.05)
    held, taken = asyncio.Event(), asyncio.Event()

    async def held_call(method: str, *args: Any) -> Any:
        await held.wait()
        answer = await Engine.call(engine, method, *args)
        if method == "coloq_poll" and answer is not None:
            taken.set()
        return answer

    engine.call = held_call  # type: ignore[method-assign]
    answers = await asyncio.to_thread(rewards.parts["taste"].score_live, [_sample("gut"), _sample("schlecht")])
    assert answers == [None, None]
    held.set()
    await taken.wait()
    assert engine.answers == {}


@pytest.mark.parametrize(
    ("failure", "expected"), [(EngineDead("gone"), EngineDead), (EngineError("untrainable"), TrainerFailed)]
)
async def test_an_engine_that_fails_is_no_score(
    engine: Engine, scorer: Path, tmp_path: Path, failure: Exception, expected: type[Exception]
) -> None:
    """Tuning hears why; a live request is ranked without the part."""
    rewards = await _rewards(engine, tmp_path, scorer)
    engine.failure = failure
    with pytest.raises(expected):
        await _judged(rewards, _sample("gut"))
    assert await asyncio.to_thread(rewards.parts["taste"].score_live, [_sample("gut")]) == [None]


async def test_what_does_not_fit_the_backbones_positions_is_ungradable(
    engine: Engine, scorer: Path, tmp_path: Path
) -> None:
    """The configuration would take 5,000 tokens; the model has 512 positions."""
    rewards = await _rewards(engine, tmp_path, scorer, max_tokens=5000, batch_tokens=5000)
    (answer,) = await _judged(rewards, _sample("Kaffee " * 600))
    assert isinstance(answer, Ungradable)
    assert answer.reason.startswith("brief and reply must fit 512 tokens")


@pytest.mark.parametrize(
    ("method", "device", "shares"), [("adapter", "engine", True), ("adapter", "cpu", False), ("full", "engine", False)]
)
def test_the_served_models_weights_are_shared_while_they_stand_still(method: Any, device: Any, shares: bool) -> None:
    """A judge whose weights are tuned to please it would be none; on another device there must be a copy."""
    config = NodeConfig(
        tuning=TuningConfig(method=method), rewards=RewardsConfig(models={"taste": RewardModelConfig(device=device)})
    )
    (order,) = backbone_orders(config, "taste", "folder")
    assert (order.source, order.shares, order.configured) == ("folder", shares, config.engine.model)


async def test_a_model_that_is_not_there_is_refused_with_its_key(engine: Engine, tmp_path: Path) -> None:
    """The message names the part."""
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(InvalidConfig, match=r"rewards\.models\.taste\.model: .*cannot be loaded"):
        await _rewards(engine, tmp_path, tmp_path)
    with pytest.raises(InvalidConfig, match=r"rewards\.models\.taste\.model: must be an embedded model's name"):
        await _rewards(engine, tmp_path, Path("no such model"))


async def test_an_off_the_shelf_scorer_gets_the_languages_scale_and_keeps_it(
    engine: Engine, scorer: Path, tmp_path: Path
) -> None:
    """Ten replies give mean m and deviation s: a raw score r is worth tanh((r - m) / s / 2), after a restart, too."""
    rewards = await _rewards(engine, tmp_path, scorer)
    brief = _sample("").brief
    replies = [(brief, f"{number} Kaffee") for number in range(10)]
    assert rewards.uncalibrated(["de", "pl"]) == ["de", "pl"]
    await rewards.calibrate("de", replies)
    assert rewards.uncalibrated(["de", "pl"]) == ["pl"]
    encoder = RewardEncoder.load(str(scorer))
    backbone = Backbone(load_classifier(str(scorer), encoder.tokenizer))
    raws = torch.tensor(backbone.scores([encoder.encode(*reply) for reply in replies], None), dtype=torch.float64)
    (raw,) = backbone.scores([encoder.encode(brief, "gut")], None)
    expected = torch.tanh((raw - raws.mean()) / raws.std(correction=0) / 2).item()
    for _ in range(2):
        (answer,) = await _judged(rewards, _sample("gut"))
        assert isinstance(answer, Score)
        assert answer.value == pytest.approx(expected, abs=1e-4)
        rewards = await _rewards(engine, tmp_path, scorer)


async def test_a_trained_language_needs_no_other_calibration(
    engine: Engine, language_model: Path, tmp_path: Path
) -> None:
    """Its manifest has one; a language model's missing head has nothing to calibrate."""
    save_tiny_adapter(tmp_path, "de", language_model)
    set_active_version(tmp_path, "de", 1)
    rewards = await _rewards(engine, tmp_path, language_model)
    assert rewards.uncalibrated(["de", "pl"]) == []


async def test_a_calibration_needs_replies(engine: Engine, scorer: Path, tmp_path: Path) -> None:
    """One reply has no deviation."""
    rewards = await _rewards(engine, tmp_path, scorer)
    with pytest.raises(ModelError, match="cannot be calibrated for de: a calibration needs at least 2"):
        await rewards.calibrate("de", [(_sample("").brief, "gut")])
