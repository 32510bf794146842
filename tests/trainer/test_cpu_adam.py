"""AdamW in host memory: DeepSpeed's arithmetic, and what is said when it cannot be had."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from agent.errors import TrainerFailed
from trainer import cpu_adam
from trainer.cpu_adam import CpuAdamW
from trainer.optimizer import MasterAdamW, Optimizer

with_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="the optional extra `deepspeed` is not installed"
)
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
pytestmark = pytest.mark.timeout(
    900
)  # DeepSpeed compiles its operator in the first test of a machine: 80 s on two cores


def _step(optimizer: Optimizer, gradients: list[torch.Tensor]) -> None:
    optimizer.discard()
    for total, gradient in zip(optimizer.gradients, gradients, strict=True):
        total.add_(gradient)
    optimizer.step(max_grad_norm=1.0, gradient_norm=float(optimizer.gradient_norm()))


@with_deepspeed
def test_it_is_torchs_adamw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five steps with decay and clipping, each tensor in pieces of 8: masters within 1e-6 of torch's AdamW."""
    monkeypatch.setattr(cpu_adam, "_PIECE", 8)
    generator = torch.Generator().manual_seed(0)
    ours = [torch.randn(5, 4, generator=generator), torch.randn(3, generator=generator)]
    theirs = [nn.Parameter(tensor.clone()) for tensor in ours]
    optimizer = CpuAdamW(ours, learning_rate=0.05, weight_decay=0.1)
    reference = torch.optim.AdamW(theirs, lr=0.05, weight_decay=0.1)
    for _ in range(5):
        gradients = [torch.randn(tensor.shape, generator=generator) for tensor in ours]
        _step(optimizer, gradients)
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_(theirs, 1.0)
        reference.step()
        optimizer.write(ours)
        for master, tensor, parameter in zip(optimizer.masters, ours, theirs, strict=True):
            torch.testing.assert_close(master, parameter.detach(), rtol=0, atol=1e-6)
            assert torch.equal(tensor, master)


@with_deepspeed
def test_new_weights_are_rounded_into_the_gradients_memory() -> None:
    """Three bf16 weights take the first six of twelve bytes; the targets get the rounded masters."""
    tensors = [torch.tensor([1.0, -2.0, 3.0], dtype=torch.bfloat16)]
    optimizer = CpuAdamW(tensors, learning_rate=0.1, weight_decay=0.0)
    _step(optimizer, [torch.tensor([1.0, -1.0, 1.0])])
    optimizer.write(tensors)
    assert torch.equal(tensors[0], optimizer.masters[0].to(torch.bfloat16))
    assert torch.equal(optimizer.gradients[0].view(torch.bfloat16)[:3], tensors[0])


@with_deepspeed
def test_nothing_is_written_without_a_step() -> None:
    """Before the first one, and once its gradients, and with them the staged weights, were discarded."""
    tensors = [torch.ones(2)]
    optimizer = CpuAdamW(tensors, learning_rate=0.1, weight_decay=0.0)
    with pytest.raises(TrainerFailed, match="a step must come before"):
        optimizer.write(tensors)
    _step(optimizer, [torch.ones(2)])
    optimizer.discard()
    with pytest.raises(TrainerFailed, match="a step must come before"):
        optimizer.write(tensors)
    assert tensors[0].tolist() == [1.0, 1.0]


@with_deepspeed
def test_what_is_not_finite_is_refused() -> None:
    """A gradient before anything is changed, an update before it can be written."""
    optimizer = CpuAdamW([torch.tensor([0.5])], learning_rate=0.125, weight_decay=0.0)
    with pytest.raises(TrainerFailed, match="norm of the gradient must be finite, got nan"):
        _step(optimizer, [torch.tensor([float("nan")])])
    assert optimizer.masters[0].item() == 0.5
    broken = CpuAdamW([torch.tensor([0.5])], learning_rate=float("inf"), weight_decay=0.0)
    with pytest.raises(TrainerFailed, match="updated weights must be finite"):
        _step(broken, [torch.ones(1)])
    with pytest.raises(TrainerFailed, match="a step must come before"):
        broken.write([torch.zeros(1)])


@with_deepspeed
@on_gpu
def test_on_a_gpu_it_is_the_gpus_own_adamw() -> None:
    """Tensors of several pieces, sent to the host and back: within bf16's rounding of fused AdamW's weights."""
    generator = torch.Generator("cuda").manual_seed(0)
    tensors = [torch.randn(n, generator=generator, device="cuda").bfloat16() for n in (5 * 2**20, 7, 9 * 2**20 + 3)]
    host = CpuAdamW(tensors, learning_rate=1e-2, weight_decay=0.1)
    device = MasterAdamW(tensors, learning_rate=1e-2, weight_decay=0.1)
    for _ in range(3):
        gradients = [torch.randn(t.shape, generator=generator, device="cuda") for t in tensors]
        for optimizer in (host, device):
            _step(optimizer, gradients)
    for ours, theirs in zip(host.masters, device.masters, strict=True):
        torch.testing.assert_close(ours, theirs.cpu(), rtol=0, atol=1e-5)
    written = [torch.empty_like(tensor) for tensor in tensors]
    host.write(written)
    for target, master in zip(written, host.masters, strict=True):
        assert torch.equal(target.cpu(), master.bfloat16())


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """None in its place is how Python marks a module that cannot be imported."""
    monkeypatch.setitem(__import__("sys").modules, "deepspeed.ops.adam", None)
    with pytest.raises(TrainerFailed, match=r'needs DeepSpeed, and .*: pip install "coloq\[deepspeed\]"'):
        CpuAdamW([torch.ones(1)], learning_rate=0.1, weight_decay=0.0)


@with_deepspeed
def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An operator that was never compiled, and a compiler that does not exist."""
    from deepspeed.ops.op_builder.builder import OpBuilder

    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setenv("CXX", str(tmp_path / "no-compiler"))
    monkeypatch.setattr(OpBuilder, "_loaded_ops", {})
    with pytest.raises(TrainerFailed, match=r"needs a C\+\+ compiler and ninja .* and failed: "):
        CpuAdamW([torch.ones(1)], learning_rate=0.1, weight_decay=0.0)


@with_deepspeed
def test_a_restored_optimizer_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """After two steps of three, each tensor in pieces of 8: the weights are staged at once. The third step is equal but
    for a rounding: DeepSpeed keeps a running product of its betas, and after a restart takes their power instead."""
    monkeypatch.setattr(cpu_adam, "_PIECE", 8)
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(5, 4, generator=generator), torch.randn(3, generator=generator)]
    gradients = [[torch.randn(tensor.shape, generator=generator) for tensor in tensors] for _ in range(3)]
    ours = CpuAdamW(tensors, learning_rate=0.05, weight_decay=0.1)
    for step in gradients[:2]:
        _step(ours, step)
    state = {name: tensor.clone() for name, tensor in ours.export().items()}
    targets = [torch.zeros_like(tensor) for tensor in tensors]
    other = CpuAdamW(targets, learning_rate=0.05, weight_decay=0.1)
    other.restore(state.items())
    other.write(targets)
    assert all(torch.equal(target, master) for target, master in zip(targets, ours.masters, strict=True))
    _step(ours, gradients[2])
    _step(other, gradients[2])
    torch.testing.assert_close(other.masters, ours.masters, rtol=0, atol=1e-6)
    assert not any(torch.equal(master, target) for master, target in zip(other.masters, targets, strict=True))
    assert state["step.0"] == 2
