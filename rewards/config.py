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


class FeedbackConfig(Section):
    """Section `[rewards.feedback]`: how far one tenant or end user may move what is learnt from feedback."""

    max_pairs_per_tenant: Annotated[int, Field(ge=1)] = 2000
    """Most preference pairs of one tenant in one language."""
    max_pairs_per_end_user: Annotated[int, Field(ge=1)] = 20
    """Most preference pairs that rest on one end user alone, in one language."""
    max_share_per_tenant: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Largest share of a language's pairs that come from one tenant; an equal share where there are fewer tenants."""
    free_pairs_per_tenant: Annotated[int, Field(ge=0)] = 100
    """So many pairs a tenant may give whatever its share."""
    max_pairs_per_prompt: Annotated[int, Field(ge=1)] = 8
    """Most pairs of rated replies to one prompt of one tenant; those that are rated furthest apart."""
    max_ratings_per_hour: Annotated[int, Field(ge=1)] = 60
    """More ratings of one end user in an hour are left out when nearly all are equal."""
    max_key_ratings_per_hour: Annotated[int, Field(ge=1)] = 1000
    """More ratings through one API key in an hour are left out when nearly all are equal."""


class RewardsConfig(Section):
    """Section `[rewards]`."""

    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=lambda: {**_PARTS, **_FAULTS})
    """Weight of each reward part; a part that is absent weighs nothing. The weight of a fault (format, brand, banned,
    register, numerals, leakage, prose) is what a reply loses by it. Tenants override per language."""
    extra: dict[str, str] = Field(default_factory=dict)
    """Reward models of your own: name to `package.module:factory`; the factory takes no argument.
    Each one needs a weight, here or in a tenant's `reward_weights`."""
    feedback: FeedbackConfig = FeedbackConfig()
