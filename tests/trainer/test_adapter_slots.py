"""An adapter's way into the engine's slots, on a manager that holds what vLLM's does."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from agent.errors import TrainerFailed
from trainer.adapter_slots import EngineSlots
from trainer.flat_tensors import FlatTensors

RANK, HIDDEN, QUERY, KEY_VALUE, INTERMEDIATE, VOCABULARY, SLOTS = 2, 6, 6, 4, 8, 10, 3
CONFIG = {"r": RANK, "lora_alpha": 6.0}
"""B is multiplied by 6 / 2 = 3."""
LAYER = "model.layers.0"
QKV, DOWN, HEAD = f"{LAYER}.self_attn.qkv_proj", f"{LAYER}.mlp.down_proj", "logits_processor"
SOILED = -1.0
"""What an earlier adapter left in every slot."""


@dataclass
class _Module:
    """A layer with LoRA as vLLM has it: stacks of [slots, 1, r, in] and [slots, 1, out, r], one per slice, or a tensor
    for a layer that is never sliced."""

    lora_a_stacked: tuple[Tensor, ...] | Tensor
    lora_b_stacked: tuple[Tensor, ...] | Tensor


class _Plain:
    """A layer of another kind, without stacks."""


@dataclass
class _Manager:
    """What trainer.adapter_slots reads and writes of vLLM's manager; removing is as vLLM does it."""

    modules: dict[str, Any]
    lora_index_to_id: list[int | None] = field(default_factory=lambda: [None] * SLOTS)
    _registered_adapters: dict[int, Any] = field(default_factory=dict)
    _active_adapters: dict[int, None] = field(default_factory=dict)

    def remove_adapter(self, adapter_id: int) -> bool:
        if adapter_id in self._active_adapters:
            self.lora_index_to_id[self.lora_index_to_id.index(adapter_id)] = None
            del self._active_adapters[adapter_id]
        return self._registered_adapters.pop(adapter_id, None) is not None


def _stack(*size: int) -> Tensor:
    return torch.full((SLOTS, 1, *size), SOILED)


def _linear(inputs: int, *outputs: int) -> _Module:
    return _Module(tuple(_stack(RANK, inputs) for _ in outputs), tuple(_stack(out, RANK) for out in outputs))


@pytest.fixture
def manager() -> _Manager:
    return _Manager(
        {
            QKV: _linear(HIDDEN, QUERY, KEY_VALUE, KEY_VALUE),
            f"{LAYER}.self_attn.o_proj": _linear(QUERY, HIDDEN),
            f"{LAYER}.mlp.gate_up_proj": _linear(HIDDEN, INTERMEDIATE, INTERMEDIATE),
            DOWN: _linear(INTERMEDIATE, HIDDEN),
            HEAD: _Module(_stack(RANK, HIDDEN), _stack(VOCABULARY, RANK)),
            "model.norm": _Plain(),
        }
    )


def _name(path: str, part: str) -> str:
    return f"base_model.model.{LAYER}.{path}.{part}.weight"


def _adapter(start: float = 1.0) -> dict[str, Tensor]:
    """q, v and down; every value occurs once."""
    sizes = {
        "self_attn.q_proj": (HIDDEN, QUERY),
        "self_attn.v_proj": (HIDDEN, KEY_VALUE),
        "mlp.down_proj": (INTERMEDIATE, HIDDEN),
    }
    tensors: dict[str, Tensor] = {}
    for path, (inputs, outputs) in sizes.items():
        for part, shape in (("lora_A", (RANK, inputs)), ("lora_B", (outputs, RANK))):
            size = shape[0] * shape[1]
            tensors[_name(path, part)] = torch.arange(start, start + size).view(shape)
            start += size
    return tensors


def _contents(manager: _Manager, slot: int) -> dict[str, Tensor]:
    """Every matrix of a slot, by module, part and slice."""
    found: dict[str, Tensor] = {}
    for name, module in manager.modules.items():
        for part in ("lora_a", "lora_b"):
            stacked = getattr(module, f"{part}_stacked", ())
            for piece, stack in enumerate((stacked,) if isinstance(stacked, Tensor) else stacked):
                found[f"{name}.{part}.{piece}"] = stack[slot, 0].clone()
    return found


def _expected(adapter: dict[str, Tensor], manager: _Manager) -> dict[str, Tensor]:
    """q is slice 0 of qkv, v slice 2, down a layer of its own; A as it is, B times 3, all else zero."""
    expected = {name: torch.zeros_like(matrix) for name, matrix in _contents(manager, 0).items()}
    for path, place in (("self_attn.q_proj", (QKV, 0)), ("self_attn.v_proj", (QKV, 2)), ("mlp.down_proj", (DOWN, 0))):
        expected[f"{place[0]}.lora_a.{place[1]}"] = adapter[_name(path, "lora_A")]
        expected[f"{place[0]}.lora_b.{place[1]}"] = adapter[_name(path, "lora_B")] * 3
    return expected


def _assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def _soiled(manager: _Manager) -> dict[str, Tensor]:
    return {name: torch.full_like(matrix, SOILED) for name, matrix in _contents(manager, 0).items()}


def test_every_matrix_has_its_place(manager: _Manager) -> None:
    """The first free slot takes the adapter, B scaled by alpha / r; what the adapter lacks is zeroed, in the head's
    plain stacks too; other slots stay, and so does the adapter."""
    adapter, kept = _adapter(), _adapter()
    EngineSlots(manager).install(7, FlatTensors.of(adapter), CONFIG)
    _assert_same(_contents(manager, 0), _expected(kept, manager))
    _assert_same(_contents(manager, 1), _soiled(manager))
    _assert_same(adapter, kept)


def test_an_adapter_of_every_layer_leaves_nothing_to_zero() -> None:
    """The engine has slots for the one layer that the adapter has."""
    every = _Manager({DOWN: _linear(INTERMEDIATE, HIDDEN)})
    path = "mlp.down_proj"
    adapter = {
        _name(path, "lora_A"): torch.ones(RANK, INTERMEDIATE),
        _name(path, "lora_B"): torch.ones(HIDDEN, RANK),
    }
    EngineSlots(every).install(1, FlatTensors.of(adapter), CONFIG)
    assert every.modules[DOWN].lora_a_stacked[0][0, 0].eq(1).all()
    assert every.modules[DOWN].lora_b_stacked[0][0, 0].eq(3).all()


def test_an_installed_version_is_known_to_the_engine(manager: _Manager) -> None:
    """vLLM's caches name it, so a request for it loads nothing; its slot is the one that was filled."""
    EngineSlots(manager).install(7, FlatTensors.of(_adapter()), CONFIG)
    assert manager.lora_index_to_id == [7, None, None]
    assert set(manager._registered_adapters) == set(manager._active_adapters) == {7}
    assert manager._registered_adapters[7].id == 7


def test_versions_have_slots_of_their_own(manager: _Manager) -> None:
    """Two adapters, two slots, whatever the order of their numbers."""
    slots = EngineSlots(manager)
    slots.install(9, FlatTensors.of(_adapter()), CONFIG)
    slots.install(4, FlatTensors.of(_adapter(100.0)), CONFIG)
    assert slots.installed == [4, 9]
    assert manager.lora_index_to_id == [9, 4, None]
    _assert_same(_contents(manager, 0), _expected(_adapter(), manager))
    _assert_same(_contents(manager, 1), _expected(_adapter(100.0), manager))


def test_a_removed_version_frees_its_slot(manager: _Manager) -> None:
    """The next one takes it, and nothing of the removed one is left there; removing it again does nothing."""
    slots = EngineSlots(manager)
    slots.install(1, FlatTensors.of(_adapter()), CONFIG)
    slots.install(2, FlatTensors.of(_adapter()), CONFIG)
    slots.remove(1)
    slots.remove(1)
    assert slots.installed == [2]
    down = {name: tensor for name, tensor in _adapter(200.0).items() if "down_proj" in name}
    slots.install(3, FlatTensors.of(down), CONFIG)
    assert manager.lora_index_to_id == [3, 2, None]
    expected = {name: torch.zeros_like(matrix) for name, matrix in _contents(manager, 0).items()}
    expected[f"{DOWN}.lora_a.0"] = down[_name("mlp.down_proj", "lora_A")]
    expected[f"{DOWN}.lora_b.0"] = down[_name("mlp.down_proj", "lora_B")] * 3
    _assert_same(_contents(manager, 0), expected)


def test_a_version_is_installed_once(manager: _Manager) -> None:
    """An installed policy is immutable: requests may be running on it."""
    slots = EngineSlots(manager)
    slots.install(7, FlatTensors.of(_adapter()), CONFIG)
    with pytest.raises(TrainerFailed, match="version 7 is installed already"):
        slots.install(7, FlatTensors.of(_adapter(100.0)), CONFIG)
    _assert_same(_contents(manager, 0), _expected(_adapter(), manager))
    assert manager.lora_index_to_id == [7, None, None]


def test_taken_slots_are_not_written_over(manager: _Manager) -> None:
    """The fourth version finds three slots taken; nothing is evicted here."""
    slots = EngineSlots(manager)
    for version in (1, 2, 3):
        slots.install(version, FlatTensors.of(_adapter()), CONFIG)
    with pytest.raises(TrainerFailed, match="all 3 adapter slots are taken"):
        slots.install(4, FlatTensors.of(_adapter(100.0)), CONFIG)
    assert slots.installed == [1, 2, 3]
    _assert_same(_contents(manager, 2), _expected(_adapter(), manager))


@pytest.mark.parametrize(
    ("misfit", "message"),
    [
        ({_name("mlp.down_proj", "lora_A"): torch.ones(RANK + 1, INTERMEDIATE)}, r"must be \[2, 8\], got \[3, 8\]"),
        ({"base_model.model.model.layers.1.mlp.down_proj.lora_A.weight": torch.ones(RANK, 8)}, "no adapter slot for"),
        ({"base_model.model.model.embed_tokens.lora_A.weight": torch.ones(RANK, 8)}, "module must end in one of"),
    ],
    ids=["rank", "layer", "module"],
)
def test_a_matrix_without_a_place_is_refused(manager: _Manager, misfit: dict[str, Tensor], message: str) -> None:
    """Of another rank, of a layer that the engine does not have, of a module that takes none: nothing is written."""
    slots = EngineSlots(manager)
    with pytest.raises(TrainerFailed, match=message):
        slots.install(7, FlatTensors.of(_adapter() | misfit), CONFIG)
    assert slots.installed == []
    _assert_same(_contents(manager, 0), _soiled(manager))


def test_weights_of_another_precision_are_converted(manager: _Manager) -> None:
    """A kept bf16 adapter fills fp32 slots with the values that it has."""
    adapter = {name: (tensor / 7).bfloat16() for name, tensor in _adapter().items()}
    EngineSlots(manager).install(7, FlatTensors.of(adapter), CONFIG)
    _assert_same(_contents(manager, 0), _expected({n: t.float() for n, t in adapter.items()}, manager))


def test_the_size_is_that_of_all_slots(manager: _Manager) -> None:
    """Inputs and outputs: qkv 3 * 6 + 14, o 12, gate and up 2 * 6 + 16, down 14, head 16, together 102; times rank 2,
    3 slots, 4 bytes: 2,448."""
    assert EngineSlots(manager).size_bytes == 2_448


def test_a_rehearsal_leaves_slots_empty(manager: _Manager) -> None:
    """The first one is used for it, and installing goes on as ever."""
    slots = EngineSlots(manager)
    slots.rehearse()
    stacks = manager.modules[QKV].lora_a_stacked + manager.modules[QKV].lora_b_stacked
    assert all(bool((stack[0] == 0).all()) and bool((stack[1:] == SOILED).all()) for stack in stacks)
    assert slots.installed == []
    slots.install(7, FlatTensors.of(_adapter()), CONFIG)
    assert slots.installed == [7]
