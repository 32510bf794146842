"""Weights by which the named parts alone are judged: a table of weights amends the defaults, and 0 leaves one out."""

from rewards.config import RewardsConfig


def only(**weights: float) -> dict[str, float]:
    """Of `rewards.weights`: the default parts that are not named weigh 0."""
    return {**dict.fromkeys(RewardsConfig().weights, 0.0), **weights}


def only_in_toml(**weights: float) -> str:
    """The same as the lines of the table `[rewards.weights]`."""
    return "".join(f"{name} = {weight}\n" for name, weight in only(**weights).items())
