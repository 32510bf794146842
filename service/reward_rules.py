"""What `[rewards]` and the tenants' weights must keep to beyond their types. A message reads ``path: rule``."""

from collections.abc import Collection, Iterator, Mapping

from agent.language import find_language
from rewards.config import DEFAULT_WEIGHTS, FAULT_WEIGHTS
from service.config import NodeConfig

BUILT_IN_PARTS = frozenset(DEFAULT_WEIGHTS)
"""Parts that the built-in rules score: by default each has a weight."""


def reward_parts(config: NodeConfig) -> frozenset[str]:
    """Names that a reward weight may have."""
    return BUILT_IN_PARTS | config.rewards.extra.keys() | config.rewards.models.keys()


def reward_rules(config: NodeConfig) -> Iterator[str]:
    """A message for each rule that the rewards break."""
    rewards = config.rewards
    for name in sorted(BUILT_IN_PARTS & rewards.extra.keys()):
        yield f"rewards.extra.{name}: must not take the name of a built-in part, got {name!r}"
    for name in sorted((BUILT_IN_PARTS | rewards.extra.keys()) & rewards.models.keys()):
        yield f"rewards.models.{name}: must not take the name of another part, got {name!r}"
    yield from _unweighted(config)
    yield from _unjudged(config)
    for name, model in rewards.models.items():
        for code in model.languages:
            if find_language(code) is None or not code.islower():
                yield f"rewards.models.{name}.languages: must be ISO 639-1 codes, got {code[:35]!r}"


def _unweighted(config: NodeConfig) -> Iterator[str]:
    """Judges that nobody asks."""
    weighted = {*config.rewards.weights}
    for tenant in config.tenants:
        for settings in tenant.languages.values():
            weighted |= settings.reward_weights.keys()
    for table, names in (("extra", config.rewards.extra), ("models", config.rewards.models)):
        for name in names:
            if name not in weighted:
                yield f"rewards.weights.{name}: must be set for a judge of rewards.{table}, got nothing"


def _unjudged(config: NodeConfig) -> Iterator[str]:
    """Weights under which no reply could be graded: faults alone make no reward."""
    default = config.rewards.weights
    if not config.tenants and not _grades(default):
        yield f"rewards.weights: must weigh a part above 0 that is no fault, got {_shown(default)}"
    for index, tenant in enumerate(config.tenants):
        for code, settings in tenant.languages.items():
            weights = {**default, **settings.reward_weights}
            if not _grades(weights):
                path = f"tenants[{index}].languages.{code}.reward_weights"
                yield f"{path}: must leave a part above 0 that is no fault, got {_shown(weights)}"


def _grades(weights: Mapping[str, float]) -> bool:
    return any(weight > 0 for part, weight in weights.items() if part not in FAULT_WEIGHTS)


def _shown(weights: Mapping[str, float]) -> str:
    above: Collection[str] = [part for part, weight in weights.items() if weight > 0]
    return f"{', '.join(above)} alone" if above else "0 for all"
