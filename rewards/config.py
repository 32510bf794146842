"""Configuration that this package owns: which parts a reward has and what they weigh."""

from typing import Annotated

from pydantic import Field

from agent.config import Section

_PARTS = {"fidelity": 1.0, "length": 0.5, "repetition": 0.5, "substance": 0.5}
_FAULTS = {
    "format": 0.5,
    "brand": 0.5,
    "banned": 0.5,
    "register": 0.3,
    "numerals": 0.5,
    "leakage": 0.5,
    "prose": 0.5,
}


class RewardsConfig(Section):
    """Section `[rewards]`."""

    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=lambda: {**_PARTS, **_FAULTS})
    """Weight of each reward part; a part that is absent weighs nothing. The weight of a fault (format, brand, banned,
    register, numerals, leakage, prose) is what a reply loses by it. Tenants override per language."""
    extra: dict[str, str] = Field(default_factory=dict)
    """Reward models of your own: name to `package.module:factory`; the factory takes no argument.
    Each one needs a weight, here or in a tenant's `reward_weights`."""
