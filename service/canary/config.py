"""Configuration that this package owns: how a candidate is tried on live traffic, and what counts as harm."""

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from agent.config import Section


class CanaryConfig(Section):
    """Section `[canary]`; with `tuning.method = "adapter"` only."""

    on_publish: bool = False
    """Try what a tuning run publishes on a share of the traffic first, instead of activating it for everybody."""
    share: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """Share of the end users (of the requests, where none is named) that a candidate answers."""
    languages: tuple[str, ...] = ()
    """Languages that take part; empty takes all that tenants have when the canary starts."""
    min_requests: Annotated[int, Field(ge=20)] = 100
    """Fewest replies of each side in each language that took part before a candidate can be promoted."""
    max_requests: Annotated[int, Field(ge=20)] = 20_000
    """Replies of the candidate after which the canary is decided."""
    min_duration_s: Annotated[float, Field(ge=0)] = 3_600.0
    """A canary is promoted no earlier than this."""
    max_duration_s: Annotated[float, Field(gt=0)] = 259_200.0
    """A canary is decided at this age: promoted when no language is worse than allowed, else taken back."""
    max_reward_drop: Annotated[float, Field(gt=0, le=2)] = 0.1
    """A candidate's mean reward in a language may be this much lower, no more."""
    max_contract_failure_rise: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Its share of replies that break the language contract may be this much higher."""
    max_feedback_drop: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Its mean feedback, from 0 to 1, may be this much lower."""
    max_failure_rise: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Its share of requests that the engine fails may be this much higher."""
    max_latency_ratio: Annotated[float, Field(gt=1)] = 1.25
    """Its replies may take this many times as long (ratio of geometric means)."""
    error_rate: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Probability that a candidate which is no worse is stopped at any time, over all languages and measures."""
    per_end_user: Annotated[int, Field(ge=1)] = 20
    """Replies of one end user and language that count; further ones are answered, and not compared. What one person got
    is one draw: nothing is decided below five people on each side."""
    scored_per_minute: Annotated[int, Field(ge=0)] = 120
    """Served replies that are scored for the comparison, in a minute; 0 compares no rewards."""
    auto_stop: bool = True
    """Take a candidate back by itself when it does harm; else harm is only shown."""
    auto_promote: bool = True
    """Promote a candidate by itself when it is shown to be no worse; else it waits for an operator until its time is
    over."""
    watch_s: Annotated[float, Field(ge=0)] = 3_600.0
    """How long a policy is compared with its predecessor's record after it took over; harm rolls it back. 0 is not at
    all."""

    @field_validator("max_duration_s")
    @classmethod
    def _long_enough(cls, longest: float, info: ValidationInfo) -> float:
        shortest = info.data.get("min_duration_s", 0.0)
        if longest < shortest:
            raise PydanticCustomError(
                "canary_duration", "must not be below canary.min_duration_s ({shortest})", {"shortest": shortest}
            )
        return longest
