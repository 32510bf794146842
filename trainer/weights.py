"""What a run trains: an adapter's weights, or the model's own. Both end in sums of fp32 gradients and fp32 masters."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from agent.errors import TrainerFailed
from trainer.ahead import computing_with, rounded
from trainer.cpu_adam import CpuAdamW
from trainer.lora import Adapter
from trainer.optimizer import MasterAdamW, Optimizer
from trainer.ports import LearnerSettings


class TrainedWeights(Protocol):
    """The leaves of the training graph, with the optimizer that moves them."""

    @property
    def optimizer(self) -> Optimizer: ...

    def after_step(self) -> None:
        """Bring the optimizer's result to where the next forward pass reads it, if it may be there by now."""
        ...

    def snapshot(self) -> Mapping[str, Tensor]:
        """A copy of the newest weights, by their names on disk."""
        ...

    def fits(self, settings: LearnerSettings) -> bool:
        """True when a run of these settings can use what is there: its memory, and graphs that hold its addresses."""
        ...

    def restart(self, settings: LearnerSettings, parent: Mapping[str, Tensor] | None) -> None:
        """Begin a run in the memory that is there, as if all had been made anew.

        Raises:
            TrainerFailed: ``parent`` is of another shape; nothing is changed.
        """
        ...

    def as_base(self) -> AbstractContextManager[None]:
        """Within it the model computes as the base model does.

        Raises:
            TrainerFailed: by method ``full``, which holds no copy of the base model's weights.
        """
        ...

    def newest(self) -> AbstractContextManager[None]:
        """Within it the model computes, without gradient, as the newest step has it, which by method ``full`` need not
        be live yet."""
        ...

    def newest_of(self, parameter: Tensor) -> Tensor:
        """A parameter of the model as the newest step has it."""
        ...

    def restore(self, state: Iterable[tuple[str, Tensor]]) -> None:
        """Go on from a checkpoint's optimizer state, with its result where ``after_step`` would bring it.

        Raises:
            TrainerFailed: the state is of other weights.
        """
        ...

    def memory(self) -> dict[str, int]:
        """Bytes on the weights' device by what holds them."""
        ...

    def release(self) -> None:
        """Leave the model as it was before the run, apart from its weights."""
        ...


class AdapterWeights:
    """A LoRA adapter, in one flat tensor."""

    def __init__(self, model: PreTrainedModel, settings: LearnerSettings, parent: Mapping[str, Tensor] | None) -> None:
        """Raises TrainerFailed: a target module does not exist, or ``parent`` is of another shape."""
        self._model = model
        model.requires_grad_(False)
        self._adapter = Adapter(model, settings.target_modules, rank=settings.rank, alpha=settings.alpha)
        try:
            self._fill(settings, parent)
        except BaseException:
            self._adapter.remove_from(model)
            raise
        self.optimizer: Optimizer = MasterAdamW(
            [self._adapter.flat], learning_rate=settings.learning_rate, weight_decay=settings.weight_decay
        )
        (flat,) = self.optimizer.gradients
        sums = {name: flat[where] for name, where in self._adapter.slices.items()}
        self._hooks = [collect_into(parameter, sums[name]) for name, parameter in self._adapter.parameters.items()]

    def fits(self, settings: LearnerSettings) -> bool:
        """See TrainedWeights.fits."""
        return settings.method == "adapter" and self._adapter.fits(
            settings.target_modules, rank=settings.rank, alpha=settings.alpha
        )

    def restart(self, settings: LearnerSettings, parent: Mapping[str, Tensor] | None) -> None:
        """See TrainedWeights.restart."""
        self._fill(settings, parent)
        self.optimizer.restart(
            [self._adapter.flat], learning_rate=settings.learning_rate, weight_decay=settings.weight_decay
        )

    def _fill(self, settings: LearnerSettings, parent: Mapping[str, Tensor] | None) -> None:
        if parent is None:
            self._adapter.initialise(settings.seed)
        else:
            self._adapter.load(parent)

    def after_step(self) -> None:
        """The adapter is seen by the trainer alone until it is published, so it takes the result at once."""
        self.optimizer.write([self._adapter.flat])

    def restore(self, state: Iterable[tuple[str, Tensor]]) -> None:
        """See TrainedWeights.restore."""
        self.optimizer.restore(state)
        self.after_step()

    def snapshot(self) -> Mapping[str, Tensor]:
        """See TrainedWeights.snapshot: PEFT's names."""
        return self._adapter.snapshot()

    def as_base(self) -> AbstractContextManager[None]:
        """See TrainedWeights.as_base: the adapter is switched off."""
        return self._adapter.switched_off()

    def newest(self) -> AbstractContextManager[None]:
        """See TrainedWeights.newest: the adapter has it at once."""
        return nullcontext()

    def newest_of(self, parameter: Tensor) -> Tensor:
        """See TrainedWeights.newest_of: an adapter changes no parameter of the model."""
        return parameter

    def memory(self) -> dict[str, int]:
        """See TrainedWeights.memory."""
        return {"trained_weights": self._adapter.flat.nbytes} | _optimizer_memory(self.optimizer, self._adapter.flat)

    def release(self) -> None:
        """Take the adapter off the model."""
        for hook in self._hooks:
            hook.remove()
        self._adapter.remove_from(self._model)


class FullWeights:
    """The model's own weights, which are the engine's.

    After a step the masters are ahead of the weights that the engine serves. ``publish`` makes them equal, and must run
    between two engine steps; the next step's forward pass needs it too.
    """

    def __init__(self, model: PreTrainedModel, settings: LearnerSettings) -> None:
        """Raises TrainerFailed: the CPU optimizer cannot be used here."""
        self._model = model
        self._optimizer_kind = settings.optimizer
        self._ahead = False
        """The masters are those of a step that is not live."""
        self._live = dict(model.named_parameters())
        make = CpuAdamW if settings.optimizer == "cpu" else MasterAdamW
        self.optimizer: Optimizer = make(
            list(self._live.values()), learning_rate=settings.learning_rate, weight_decay=settings.weight_decay
        )
        model.requires_grad_(True)
        self._hooks = [
            collect_into(parameter, total.view(-1))
            for parameter, total in zip(self._live.values(), self.optimizer.gradients, strict=True)
        ]

    def fits(self, settings: LearnerSettings) -> bool:
        """See TrainedWeights.fits."""
        return settings.method == "full" and settings.optimizer == self._optimizer_kind

    def restart(self, settings: LearnerSettings, parent: Mapping[str, Tensor] | None) -> None:
        """See TrainedWeights.restart. A run starts from the live weights, whatever ``parent`` is."""
        self._ahead = False
        self.optimizer.restart(
            [parameter.detach() for parameter in self._live.values()],
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )

    def after_step(self) -> None:
        """The weights are live: only ``publish`` may write them."""
        self._ahead = True

    def publish(self) -> None:
        """Round the masters of the last step into the live weights, on the current stream."""
        with torch.no_grad():
            self.optimizer.write([parameter.data for parameter in self._live.values()])
        self._ahead = False

    def restore(self, state: Iterable[tuple[str, Tensor]]) -> None:
        """See TrainedWeights.restore. The live weights follow when it is published, as after a step."""
        self.optimizer.restore(state)
        self._ahead = True

    def snapshot(self) -> Mapping[str, Tensor]:
        """See TrainedWeights.snapshot: a copy of the live weights, in host memory."""
        return {name: parameter.detach().cpu().clone() for name, parameter in self._live.items()}

    def as_base(self) -> AbstractContextManager[None]:
        """See TrainedWeights.as_base."""
        raise TrainerFailed("method full holds no copy of the base model, so there is no KL to it")

    def newest(self) -> AbstractContextManager[None]:
        """See TrainedWeights.newest: a step that is not live computes layer by layer (trainer.ahead)."""
        return computing_with(self._model, self._masters) if self._ahead else nullcontext()

    def newest_of(self, parameter: Tensor) -> Tensor:
        """See TrainedWeights.newest_of."""
        return rounded(self._masters, parameter) if self._ahead and isinstance(parameter, nn.Parameter) else parameter

    @property
    def _masters(self) -> dict[nn.Parameter, Tensor]:
        return dict(zip(self._live.values(), self.optimizer.masters, strict=True))

    def memory(self) -> dict[str, int]:
        """See TrainedWeights.memory. The weights themselves are the engine's."""
        return _optimizer_memory(self.optimizer, next(iter(self._live.values())))

    def release(self) -> None:
        """Freeze the model again."""
        for hook in self._hooks:
            hook.remove()
        self._model.requires_grad_(False)


def collect_into(parameter: nn.Parameter, total: Tensor) -> RemovableHandle:
    """After each backward pass add the parameter's gradient to a flat fp32 sum, and free it."""

    def collect(leaf: Tensor) -> None:
        if leaf.grad is not None:
            total.add_(leaf.grad.flatten())
            leaf.grad = None

    hook: RemovableHandle = parameter.register_post_accumulate_grad_hook(collect)
    return hook


def copy_into(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into a model's weights of the same names, on the current stream.

    Raises:
        TrainerFailed: names or shapes differ; nothing is changed.
    """
    live = dict(model.named_parameters())
    misfits = sorted(
        name
        for name in live.keys() | tensors.keys()
        if name not in live or name not in tensors or live[name].shape != tensors[name].shape
    )
    if misfits:
        raise TrainerFailed(f"weights must fit the model; {len(misfits)} tensors differ, the first is {misfits[0]}")
    with torch.no_grad():
        for name, parameter in live.items():
            parameter.data.copy_(tensors[name], non_blocking=True)


def _optimizer_memory(optimizer: Optimizer, beside: Tensor) -> dict[str, int]:
    """Moments are two more tensors like each master."""
    masters = sum(tensor.nbytes for tensor in optimizer.masters if tensor.device == beside.device)
    return {"masters_and_moments": 3 * masters, "gradients": sum(tensor.nbytes for tensor in optimizer.gradients)}
