"""LoRA layers that compute in the model's own precision, on one flat buffer of weights.

    T  tokens        r  rank        P  adapter weights, all layers together

    y = x W^T + b + (alpha / r) (x A^T) B^T            arXiv 2106.09685, section 4.1

All A and B of a model lie one behind the other in one tensor, so that an optimizer step, a copy for publication or a
gradient norm is one kernel. Names and shapes are PEFT's, on disk too. Knows nothing of engines or batches.
"""

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from agent.errors import TrainerFailed
from trainer.flat_tensors import FlatLayout, FlatTensors

_PREFIX = "base_model.model."
"""PEFT's wrapper modules, which its files name."""


class LoraLinear(nn.Module):
    """A frozen linear layer with an adapter beside it."""

    def __init__(self, base: nn.Linear, a: nn.Parameter, b: nn.Parameter, scale: float) -> None:
        """``a`` is [r, in], ``b`` is [out, r]."""
        super().__init__()
        self.base = base
        self.a, self.b = a, b
        self.scale = scale
        self.switched_on = True

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        if not self.switched_on:
            off: Tensor = self.base(x)
            return off
        rows = x.reshape(-1, x.shape[-1])
        y: Tensor = _LoraProduct.apply(  # type: ignore[no-untyped-call]
            rows, self.base.weight, self.base.bias, self.a, self.b, self.scale
        )
        return y.view(*x.shape[:-1], -1)


class _LoraProduct(torch.autograd.Function):
    """Adds low-rank products inside the multiplication that makes them; autograd would copy and add [T, out] apart."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        low = _scaled_product(x, a.T, scale)
        ctx.save_for_backward(x, weight, a, b, low)
        ctx.scale = scale
        return nn.functional.linear(x, weight, bias).addmm_(low, b.T)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b, low = ctx.saved_tensors
        to_low = _scaled_product(gradient, b, ctx.scale)
        to_x = torch.mm(gradient, weight).addmm_(to_low, a) if ctx.needs_input_grad[0] else None
        return to_x, None, None, to_low.T @ x, gradient.T @ low, None


def _scaled_product(left: Tensor, right: Tensor, scale: float) -> Tensor:
    """scale * left @ right in one kernel; with ``beta`` 0 the added term is never read."""
    return torch.addmm(left.new_empty(1), left, right, beta=0, alpha=scale)


@dataclass(frozen=True, slots=True)
class _Placed:
    """Where one adapter matrix lies in the flat buffer."""

    name: str
    """PEFT's name on disk."""
    module: str
    """The linear layer's path in the model."""
    start: int
    shape: tuple[int, int]

    @property
    def stop(self) -> int:
        return self.start + math.prod(self.shape)


class Adapter:
    """The adapter of a model: its flat weights, and the layers that use them."""

    def __init__(self, model: nn.Module, target_modules: Sequence[str], *, rank: int, alpha: float) -> None:
        """Put a LoraLinear in the place of every targeted layer; weights are uninitialised.

        Raises:
            TrainerFailed: a name that matches no linear layer; the model is then unchanged.
        """
        self.rank, self.alpha, self.target_modules = rank, alpha, tuple(target_modules)
        targets = _targets(model, target_modules)
        self._placed = list(_layout(targets, rank))
        first = next(iter(targets.values())).weight
        self.flat = torch.empty(self._placed[-1].stop, dtype=first.dtype, device=first.device)
        """[P] in the model's precision."""
        self.parameters = {p.name: nn.Parameter(self.flat[p.start : p.stop].view(p.shape)) for p in self._placed}
        """By PEFT's name; views of ``flat``."""
        self._layout = FlatLayout({p.name: p.shape for p in self._placed})
        self._layers: list[LoraLinear] = []
        for path, linear in targets.items():
            a, b = (self.parameters[f"{_PREFIX}{path}.{part}.weight"] for part in ("lora_A", "lora_B"))
            self._layers.append(LoraLinear(linear, a, b, alpha / rank))
            _replace(model, path, self._layers[-1])

    @property
    def slices(self) -> dict[str, slice]:
        """Where each matrix lies in ``flat``, by PEFT's name."""
        return {p.name: slice(p.start, p.stop) for p in self._placed}

    def fits(self, target_modules: Sequence[str], *, rank: int, alpha: float) -> bool:
        """True when an adapter of these settings would be laid out like this one."""
        return (self.rank, self.alpha, sorted(self.target_modules)) == (rank, alpha, sorted(target_modules))

    @contextmanager
    def switched_off(self) -> Generator[None]:
        """Within it the model computes as if it had no adapter; a graph captured within it always does."""
        for layer in self._layers:
            layer.switched_on = False
        try:
            yield
        finally:
            for layer in self._layers:
                layer.switched_on = True

    def remove_from(self, model: nn.Module) -> None:
        """Put the frozen layers back."""
        for path in {p.module for p in self._placed}:
            layer = model.get_submodule(path)
            if isinstance(layer, LoraLinear):
                _replace(model, path, layer.base)

    def initialise(self, seed: int) -> None:
        """LoRA's start: A random, B zero, so that the first policy equals the model.

        A's generator is its own: the process's global random state belongs to the engine.
        """
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                if ".lora_B." in name:
                    parameter.zero_()
                    continue
                values = torch.empty(parameter.shape)
                nn.init.kaiming_uniform_(values, a=math.sqrt(5), generator=generator)
                parameter.copy_(values)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy a written adapter's weights in.

        Raises:
            TrainerFailed: names or shapes differ; the weights are then unchanged.
        """
        ours = self.parameters
        misfits = sorted(
            name
            for name in ours.keys() | tensors.keys()
            if name not in ours or name not in tensors or ours[name].shape != tensors[name].shape
        )
        if misfits:
            raise TrainerFailed(
                f"the parent policy's adapter must have the configured rank and target modules; {len(misfits)} tensors "
                f"differ, the first is {misfits[0]}"
            )
        with torch.no_grad():
            for name, parameter in ours.items():
                parameter.copy_(tensors[name])

    def snapshot(self) -> FlatTensors:
        """A copy of the weights, by PEFT's name."""
        return FlatTensors(self.flat.detach().clone(), self._layout)


def module_of(name: str) -> tuple[str, str]:
    """A tensor's layer and part: ``base_model.model.a.q_proj.lora_A.weight`` is (``a.q_proj``, ``lora_A``)."""
    path, part, _ = name.removeprefix(_PREFIX).rsplit(".", 2)
    return path, part


def _targets(model: nn.Module, target_modules: Sequence[str]) -> dict[str, nn.Linear]:
    linears = {path: module for path, module in model.named_modules() if isinstance(module, nn.Linear)}
    chosen = {path: m for path, m in linears.items() if any(f".{path}".endswith(f".{t}") for t in target_modules)}
    missing = [t for t in target_modules if not any(f".{path}".endswith(f".{t}") for path in chosen)]
    if missing or not chosen:
        raise TrainerFailed(f"tuning.adapter.target_modules must name linear layers of this model, got {missing}")
    return chosen


def _layout(targets: Mapping[str, nn.Linear], rank: int) -> Iterator[_Placed]:
    start = 0
    for path, linear in targets.items():
        for part, shape in (("lora_A", (rank, linear.in_features)), ("lora_B", (linear.out_features, rank))):
            placed = _Placed(f"{_PREFIX}{path}.{part}.weight", path, start, shape)
            yield placed
            start = placed.stop


def _replace(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, leaf = path.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
