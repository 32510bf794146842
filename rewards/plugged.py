"""Judges of `rewards.extra`: named as `package.module:factory`, imported and made here."""

import importlib
from collections.abc import Callable

from agent.errors import InvalidConfig
from rewards.score import RewardModel


def load_model(name: str, target: str) -> RewardModel:
    """The judge of that name.

    Raises:
        InvalidConfig: it cannot be imported or made, or is no reward model.
    """
    field_path = f"rewards.extra.{name}"
    module_name, _, factory_name = target.partition(":")
    if not module_name or not factory_name:
        raise InvalidConfig(field_path, f"must read 'package.module:factory', got {target!r}")
    try:
        factory: Callable[[], RewardModel] = getattr(importlib.import_module(module_name), factory_name)
        model = factory()
    except Exception as error:  # code of somebody else's: any error in it is an error of this entry
        raise InvalidConfig(field_path, f"{target!r} failed: {type(error).__name__}: {error}") from error
    missing = [attribute for attribute in ("name", "revision", "score") if not hasattr(model, attribute)]
    if missing:
        raise InvalidConfig(field_path, f"must make a reward model, got one without {', '.join(missing)}")
    return model
