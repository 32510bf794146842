"""A model that computes with other weights than its own, a layer at a time.

By method ``full`` the learner's masters are ahead of the live weights until a step is published. What a candidate
would say of a text has to be known before that, and there is no room for a second model: so each layer borrows its own
part of the masters while it runs, and gives it back. The live weights, which the engine serves, are not touched.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def computing_with(model: nn.Module, weights: Mapping[nn.Parameter, Tensor]) -> Iterator[None]:
    """Within it ``model`` computes with these values of its parameters, rounded to their types. Without gradient.

    Items of module lists borrow as a whole, so that a layer may read its parts' weights as it likes; every other module
    borrows its own parameters.
    """
    units = [_Unit(modules, weights) for modules in _units(model)]
    handles = [handle for unit in units for handle in unit.hooks()]
    try:
        with torch.no_grad():
            yield
    finally:
        for handle in handles:
            handle.remove()
        for unit in units:
            unit.give_back()


def rounded(weights: Mapping[nn.Parameter, Tensor], parameter: nn.Parameter) -> Tensor:
    """What ``parameter`` computes with."""
    return weights[parameter].detach().to(device=parameter.device, dtype=parameter.dtype)


class _Unit:
    """Modules whose parameters are borrowed together, while the first of them runs."""

    def __init__(self, modules: list[nn.Module], weights: Mapping[nn.Parameter, Tensor]) -> None:
        self._modules, self._weights = modules, weights
        self._own: list[tuple[nn.Module, str, nn.Parameter]] = []

    def hooks(self) -> list[Any]:
        """Borrow before the forward pass, give back after it, however it ends."""
        first = self._modules[0]
        return [
            first.register_forward_pre_hook(lambda *_: self._borrow()),
            first.register_forward_hook(lambda *_: self.give_back(), always_call=True),
        ]

    def give_back(self) -> None:
        while self._own:
            module, name, parameter = self._own.pop()
            module._parameters[name] = parameter

    def _borrow(self) -> None:
        for module in self._modules:
            for name, parameter in list(module._parameters.items()):
                if parameter is not None:
                    self._own.append((module, name, parameter))
                    value = rounded(self._weights, parameter)
                    module._parameters[name] = nn.Parameter(value, requires_grad=False)


def _units(model: nn.Module) -> list[list[nn.Module]]:
    layers = [item for module in model.modules() if isinstance(module, nn.ModuleList) for item in module]
    outer = [layer for layer in layers if not any(layer is not other and _holds(other, layer) for other in layers)]
    inside = {id(module) for layer in outer for module in layer.modules()}
    others = [[module] for module in model.modules() if id(module) not in inside and _has_parameters(module)]
    return [[*layer.modules()] for layer in outer] + others


def _holds(module: nn.Module, part: nn.Module) -> bool:
    return any(found is part for found in module.modules())


def _has_parameters(module: nn.Module) -> bool:
    return any(parameter is not None for parameter in module._parameters.values())
