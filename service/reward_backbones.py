"""The backbones of reward models, from the configuration to what the front knows of those that are loaded."""

from dataclasses import dataclass, field
from typing import Literal

from agent.errors import InvalidConfig, ModelError
from rewards.models.calibration import IDENTITY
from rewards.models.encoding import RewardEncoder
from rewards.models.judge import Broken, Judge, Standing, Standings
from service import models
from service.config import NodeConfig
from service.reward_footprint import shares_weights
from trainer import messages


@dataclass(frozen=True, slots=True)
class BackboneOrder:
    """One backbone that the configuration asks for."""

    configured: str
    """The model as configured: manifests name it so."""
    source: str
    """The folder or Hugging Face id behind it."""
    device: Literal["engine", "cpu"]
    shares: bool
    """True: built on the served model's own weights."""

    @property
    def name(self) -> str:
        """What the engine process calls it."""
        return f"{self.configured} on {self.device}"


@dataclass(slots=True)
class HeldBackbone:
    """A backbone of the engine process, as far as the front knows."""

    order: BackboneOrder
    batch_tokens: int | None = None
    """The largest that a part sets; None where none does."""
    judges: list[Judge] = field(default_factory=list)
    facts: messages.BackboneFacts | None = None
    failure: str | None = None
    """Why it could not be opened."""
    own_head: dict[str, Standing] = field(default_factory=dict)
    """Languages that the backbone's own head is calibrated for."""
    by_language: dict[str, Standing | Broken] = field(default_factory=dict)
    """Languages with a version of their own."""
    loaded: dict[str, list[str]] = field(default_factory=dict)
    """Adapters in the engine process by language, the newest last: the one before it stays, since a thread may be on
    its way to it, and a rollback finds it there."""

    def seat(self) -> None:
        """Let the judges go by what is known now."""
        otherwise: Standing | Broken | None = None
        if self.failure is not None:
            otherwise = Broken(self.failure)
        elif self.facts is not None and self.facts.has_head:
            otherwise = Standing(self.order.configured, None, IDENTITY)
        for judge in self.judges:
            judge.standings = Standings({**self.own_head, **self.by_language}, otherwise)

    def needs_calibration(self, language: str) -> bool:
        """True where the own head judges by the scale that it came with."""
        has_head = self.facts is not None and self.facts.has_head
        return has_head and language not in self.own_head and language not in self.by_language


def backbone_orders(config: NodeConfig, part: str, served: str) -> list[BackboneOrder]:
    """The backbones of a part, its first model first. Fetches an embedded model's weights.

    The served model's own weights are shared unless tuning changes them or the part wants another device.

    Raises:
        InvalidConfig: there is no such model.
    """
    settings = config.rewards.models[part]
    orders = []
    for name in settings.names(config.engine.model):
        if name == config.engine.model:
            orders.append(BackboneOrder(name, served, settings.device, shares=shares_weights(config, part, name)))
            continue
        try:
            orders.append(BackboneOrder(name, models.resolve(name), settings.device, shares=False))
        except ModelError as error:
            raise InvalidConfig(f"rewards.models.{part}.model", str(error).removeprefix("engine.model: ")) from error
    return orders


def encoder_of(part: str, source: str) -> RewardEncoder:
    """The tokenizer of a part's backbone. Raises InvalidConfig: it has none."""
    try:
        return RewardEncoder.load(source)
    except ModelError as error:
        raise InvalidConfig(f"rewards.models.{part}.model", str(error)) from error
