"""The engine's adapter slots, filled from memory by one grouped copy.

    kept version                                    slot of the engine
    …k_proj.lora_A  [r, in]   ──────────────────►   qkv_proj.lora_a_stacked[1][slot, 0]     [r, in]
    …k_proj.lora_B  [out, r]  ──── x alpha / r ──►  qkv_proj.lora_b_stacked[1][slot, 0]     [out, r]

vLLM's own way sets and copies module by module. Here all matrices travel in one grouped copy. Knows vLLM's adapter
manager by the few attributes named below, which are the same in 0.26 to 0.33.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from agent.errors import TrainerFailed
from trainer.architectures import adapter_slot
from trainer.flat_tensors import FlatLayout, FlatTensors
from trainer.lora import module_of


@dataclass(frozen=True, slots=True)
class _Placement:
    """An adapter's places in one slot."""

    places: list[Tensor]
    """In the order of the adapter's matrices, each flat."""
    scaled: list[Tensor]
    """Those of the B."""
    unused: list[Tensor]
    """Matrices of the slot that this adapter does not have."""


class EngineSlots:
    """Slots of one engine. All but ``place`` runs between two engine steps, on the engine's stream."""

    def __init__(self, manager: Any) -> None:
        """``manager``: vLLM's LoRA model manager (``modules``, ``lora_index_to_id``, the two adapter caches)."""
        self._manager = manager
        self._placements: dict[tuple[int, tuple[str, ...]], _Placement] = {}

    @property
    def installed(self) -> list[int]:
        """Versions that have a slot, ascending."""
        return sorted(version for version in self._manager.lora_index_to_id if version is not None)

    @property
    def size_bytes(self) -> int:
        """Memory of all slots together."""
        return sum(tensor.nbytes for module in self._manager.modules.values() for tensor in _stacks(module))

    def rehearse(self) -> None:
        """Launch what installing launches, on slots that nothing is in yet: they are empty afterwards. A kernel's first
        launch waits for whatever else the device does (trainer.rehearsal)."""
        stacks = [stack for module in self._manager.modules.values() for stack in _stacks(module)]
        first, last = ([stack[index] for stack in stacks] for index in (0, -1))
        with torch.inference_mode():
            torch._foreach_copy_(first, last)
            torch._foreach_mul_(first, 1.0)
            torch._foreach_zero_(first)

    def place(self, layout: FlatLayout) -> None:
        """Find the places of such an adapter in every slot, so that installing it takes no time for that.

        May be called from another thread. Raises TrainerFailed when a matrix has no place or another shape there.
        """
        for index in range(len(self._manager.lora_index_to_id)):
            self._placement(index, layout)

    def install(self, version: int, adapter: FlatTensors, config: Mapping[str, object]) -> None:
        """Fill a free slot.

        Args:
            adapter: by PEFT's names.
            config: PEFT's configuration; ``lora_alpha`` and ``r`` are read.

        Raises:
            TrainerFailed: the version is installed already, every slot is taken, or a matrix has no place.
        """
        if version in self.installed:
            raise TrainerFailed(f"version {version} is installed already, and an installed policy is immutable")
        index = self._free_index()
        placement = self._placement(index, adapter.layout)
        scale = float(str(config["lora_alpha"])) / float(str(config["r"]))
        with torch.inference_mode():
            if placement.unused:
                torch._foreach_zero_(placement.unused)
            torch._foreach_copy_(placement.places, adapter.pieces())
            torch._foreach_mul_(placement.scaled, scale)
        if adapter.flat.is_cuda:  # the learner may drop it while the engine's stream still reads
            adapter.flat.record_stream(torch.cuda.current_stream())
        self._register(version, index)

    def remove(self, version: int) -> None:
        """Free a version's slot; one that has none is left alone."""
        self._manager.remove_adapter(version)

    def _free_index(self) -> int:
        slots = self._manager.lora_index_to_id
        if None not in slots:
            raise TrainerFailed(f"all {len(slots)} adapter slots are taken")
        return int(slots.index(None))

    def _placement(self, index: int, layout: FlatLayout) -> "_Placement":
        key = index, layout.names
        if key not in self._placements:
            self._placements[key] = self._find(index, layout)
        return self._placements[key]

    def _find(self, index: int, layout: FlatLayout) -> "_Placement":
        places: list[Tensor] = []
        scaled: list[Tensor] = []
        for name, shape in layout.shapes.items():
            place, is_b = self._place(name, index)
            if place.shape != shape:
                raise TrainerFailed(f"a matrix must be {list(place.shape)}, got {list(shape)}")
            places.append(place.view(-1))
            if is_b:
                scaled.append(places[-1])
        return _Placement(places, scaled, list(self._unused(index, {place.data_ptr() for place in places})))

    def _place(self, name: str, index: int) -> tuple[Tensor, bool]:
        """A matrix's place in a slot, and whether it is a B."""
        path, part = module_of(name)
        module_name, piece = adapter_slot(path)
        module = self._manager.modules.get(module_name)
        if module is None:
            raise TrainerFailed(f"the engine has no adapter slot for {path}")
        is_b = part == "lora_B"
        stacks = module.lora_b_stacked if is_b else module.lora_a_stacked
        return stacks[piece][index, 0], is_b

    def _unused(self, index: int, used: set[int]) -> Iterator[Tensor]:
        """Matrices of a slot that this adapter does not have; an earlier one may have left them filled."""
        for module in self._manager.modules.values():
            for stack in _stacks(module):
                if stack[index].data_ptr() not in used:
                    yield stack[index]

    def _register(self, version: int, index: int) -> None:
        """Tell vLLM that the adapter is there, so that a request that names it is served and nothing is loaded."""
        self._manager._registered_adapters[version] = SimpleNamespace(id=version, rank=0, loras={})
        self._manager._active_adapters[version] = None
        self._manager.lora_index_to_id[index] = version


def _stacks(module: Any) -> Iterator[Tensor]:
    """A layer's A and B of all slots: tuples of one for each slice, or one tensor; layers of another kind have none."""
    for name in ("lora_a_stacked", "lora_b_stacked"):
        stacked = getattr(module, name, ())
        yield from (stacked,) if isinstance(stacked, Tensor) else stacked
