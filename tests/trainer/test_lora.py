"""LoRA layers against PEFT's own, their flat buffer, and what is written to disk."""

from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from agent.errors import TrainerFailed
from tests.tiny_decoders import tiny_decoder
from tests.trainer.samples import SETTINGS, tiny_llama
from trainer.learner import Learner
from trainer.lora import Adapter, LoraLinear, module_of
from trainer.policy_folder import WEIGHTS, write_policy
from trainer.ports import PolicyMetadata

IDS = torch.tensor([[3, 4, 5, 6, 7, 8], [20, 21, 22, 9, 10, 11]])
TARGETS = SETTINGS.target_modules


def _layers(*, bias: bool, rank: int = 3, alpha: int = 6) -> tuple[LoraLinear, nn.Module]:
    """Ours and PEFT's, on the same frozen 5 to 7 layer with the same A and a B that is not zero."""
    generator = torch.Generator().manual_seed(0)
    theirs = nn.Sequential()
    theirs.add_module("proj", nn.Linear(5, 7, bias=bias))
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=["proj"], lora_dropout=0.0)
    layer = peft.get_peft_model(theirs, config).get_submodule("base_model.model.proj")
    a, b = (layer.get_parameter(f"{part}.default.weight") for part in ("lora_A", "lora_B"))
    with torch.no_grad():
        for parameter in (a, b):
            parameter.normal_(generator=generator)
    base = layer.get_submodule("base_layer")
    assert isinstance(base, nn.Linear)
    ours = LoraLinear(base, nn.Parameter(a.detach().clone()), nn.Parameter(b.detach().clone()), alpha / rank)
    return ours, layer


def _close(ours: object, theirs: object, *, atol: float = 1e-5) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


def _adapter(model: nn.Module, *, rank: int = 4, alpha: int = 8, seed: int = 0) -> Adapter:
    """One whose B is not zero."""
    adapter = Adapter(model, TARGETS, rank=rank, alpha=alpha)
    adapter.initialise(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        adapter.flat.add_(torch.randn(adapter.flat.shape, generator=generator), alpha=0.1)
    return adapter


def _peft_model(tensors: dict[str, Tensor], *, rank: int = 4, alpha: int = 8) -> peft.PeftModel:
    """PEFT's own model of the same base and adapter."""
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=rank, lora_alpha=alpha, target_modules=list(TARGETS), lora_dropout=0.0
    )
    model = peft.get_peft_model(tiny_llama(), config)
    peft.set_peft_model_state_dict(model, tensors)
    assert isinstance(model, peft.PeftModel)
    return model


def _logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(input_ids=IDS).logits
    return logits


@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_and_its_gradients_are_peft_s(bias: bool) -> None:
    """Output and the gradients of input, A and B agree; the frozen weight and bias get none."""
    ours, theirs = _layers(bias=bias)
    generator = torch.Generator().manual_seed(2)
    values, direction = torch.randn(2, 3, 5, generator=generator), torch.randn(2, 3, 7, generator=generator)
    x, y = values.clone().requires_grad_(), values.clone().requires_grad_()
    out, expected = ours(x), theirs(y)
    assert out.shape == (2, 3, 7)
    _close(out, expected)
    (out * direction).sum().backward()
    (expected * direction).sum().backward()
    _close(x.grad, y.grad)
    _close(ours.a.grad, theirs.get_parameter("lora_A.default.weight").grad)
    _close(ours.b.grad, theirs.get_parameter("lora_B.default.weight").grad)
    assert [parameter.grad for parameter in ours.base.parameters()] == [None] * (1 + bias)


def test_an_input_that_needs_no_gradient_gets_none() -> None:
    """As in a model's first layer, whose input comes from frozen embeddings; A and B still get theirs."""
    ours, theirs = _layers(bias=True)
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(3))
    ours(x).square().sum().backward()
    theirs(x).square().sum().backward()
    assert x.grad is None
    _close(ours.a.grad, theirs.get_parameter("lora_A.default.weight").grad, atol=1e-4)
    _close(ours.b.grad, theirs.get_parameter("lora_B.default.weight").grad, atol=1e-4)


def test_a_layer_by_hand() -> None:
    """W = (1 2), b = 1, A = (1 1), B = 3, alpha / r = 2 at x = (5, 7): 19 + 1 + 2 * 12 * 3 = 92.

    dy/dx = W + 2 * 3 * A = (7, 8), dy/dA = 2 * 3 * x = (30, 42), dy/dB = 2 * 12 = 24.
    """
    base = nn.Linear(2, 1)
    base.requires_grad_(False)
    base.weight.copy_(torch.tensor([[1.0, 2.0]]))
    base.bias.fill_(1.0)
    layer = LoraLinear(base, nn.Parameter(torch.ones(1, 2)), nn.Parameter(torch.full((1, 1), 3.0)), 2.0)
    x = torch.tensor([5.0, 7.0], requires_grad=True)
    y = layer(x)
    y.backward()
    assert y.tolist() == [92.0]
    assert x.grad is not None
    assert x.grad.tolist() == [7.0, 8.0]
    assert layer.a.grad is not None
    assert layer.a.grad.tolist() == [[30.0, 42.0]]
    assert layer.b.grad is not None
    assert layer.b.grad.tolist() == [[24.0]]


def test_a_switched_off_adapter_leaves_the_base_model() -> None:
    """To the last bit; afterwards, also after an error, it is on again."""
    model = tiny_llama()
    base = model(input_ids=IDS).logits
    adapter = _adapter(model)
    adapted = model(input_ids=IDS).logits
    assert not torch.equal(adapted, base)
    with adapter.switched_off():
        assert torch.equal(model(input_ids=IDS).logits, base)
    assert torch.equal(model(input_ids=IDS).logits, adapted)
    with pytest.raises(IndexError), adapter.switched_off():
        model(input_ids=IDS + 10_000)
    assert torch.equal(model(input_ids=IDS).logits, adapted)


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Qwen2ForCausalLM"])
def test_a_model_s_gradients_are_peft_s(architecture: str) -> None:
    """All layers together, with biases in Qwen 2: the same logits, and the same gradient of every A and B."""
    model, other = tiny_decoder(architecture), tiny_decoder(architecture)
    model.requires_grad_(False)
    adapter = _adapter(model)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=list(TARGETS), lora_dropout=0.0)
    theirs = peft.get_peft_model(other, config)
    peft.set_peft_model_state_dict(theirs, dict(adapter.snapshot()))
    ours = model(input_ids=IDS).logits
    expected = theirs(input_ids=IDS).logits
    _close(ours, expected)
    for logits in (ours, expected):
        torch.log_softmax(logits, dim=-1)[..., 7].mean().backward()
    gradients = {
        name.replace(".default.", "."): parameter.grad
        for name, parameter in theirs.named_parameters()
        if parameter.requires_grad
    }
    _close({name: parameter.grad for name, parameter in adapter.parameters.items()}, gradients)
    assert all(gradient is not None and gradient.any() for gradient in gradients.values())


def test_the_weights_lie_one_behind_the_other() -> None:
    """2 layers of q (32 to 32), v (32 to 16) and down (40 to 32) at rank 4: 2 * 4 * (64 + 48 + 72) = 1,472 values,
    every one in one matrix, each matrix a view of the flat tensor."""
    adapter = Adapter(tiny_llama(), TARGETS, rank=4, alpha=8.0)
    assert adapter.flat.shape == (1472,)
    assert [where.start for where in adapter.slices.values()] == [0] + [
        where.stop for where in list(adapter.slices.values())[:-1]
    ]
    assert list(adapter.slices.values())[-1].stop == 1472
    with torch.no_grad():
        adapter.flat.copy_(torch.arange(1472.0))
    for name, where in adapter.slices.items():
        parameter = adapter.parameters[name]
        assert parameter.untyped_storage().data_ptr() == adapter.flat.untyped_storage().data_ptr()
        assert parameter.flatten().tolist() == list(range(where.start, where.stop))


def test_layers_use_the_flat_weights() -> None:
    """What is written to the flat tensor is what the model computes with."""
    model = tiny_llama()
    adapter = _adapter(model)
    with_adapter = _logits(model)
    with torch.no_grad():
        adapter.flat.zero_()
    _close(_logits(model), _logits(tiny_llama()), atol=1e-6)
    assert not torch.allclose(with_adapter, _logits(model), atol=1e-3)


def test_names_and_shapes_on_disk_are_peft_s(tmp_path: Path) -> None:
    """A snapshot's keys and shapes are those of the file that PEFT writes for the same settings."""
    adapter = _adapter(tiny_llama())
    theirs = _peft_model(dict(adapter.snapshot()))
    theirs.save_pretrained(str(tmp_path))
    written = load_file(tmp_path / "adapter_model.safetensors")
    _close(dict(sorted(adapter.snapshot().items())), dict(sorted(written.items())), atol=0)


def test_a_written_policy_loads_with_peft(tmp_path: Path) -> None:
    """PEFT reads the folder as it is, configuration too, and computes the same logits."""
    model = tiny_llama()
    adapter = _adapter(model)
    learner = Learner(tiny_llama(), base_model="tiny")
    learner.begin(SETTINGS, adapter.snapshot())
    folder = tmp_path / "v1"
    write_policy(folder, learner.snapshot(), learner.adapter_config(), PolicyMetadata(1, 0, "run_a", "tiny"))
    assert (folder / WEIGHTS).exists()
    loaded = peft.PeftModel.from_pretrained(tiny_llama(), str(folder))
    _close(_logits(loaded), _logits(model))
    assert not torch.allclose(_logits(loaded), _logits(tiny_llama()), atol=1e-3)


def test_the_first_policy_equals_the_model() -> None:
    """B is zero; A is uniform in +-1 / sqrt(in), as kaiming_uniform_ with a = sqrt(5) is: sqrt(6 / (6 in))."""
    model = tiny_llama()
    adapter = Adapter(model, TARGETS, rank=4, alpha=8.0)
    adapter.initialise(0)
    for name, parameter in adapter.parameters.items():
        _, part = module_of(name)
        bound = parameter.shape[1] ** -0.5
        largest = parameter.abs().max().item()
        assert largest == 0 if part == "lora_B" else 0.9 * bound < largest <= bound
    assert torch.equal(_logits(model), _logits(tiny_llama()))


def test_the_seed_decides_the_start() -> None:
    """Twice the same seed, twice the same weights, another seed others; the process's random state stays."""
    adapter = Adapter(tiny_llama(), TARGETS, rank=4, alpha=8.0)
    state = torch.get_rng_state()
    snapshots = []
    for seed in (5, 5, 6):
        adapter.initialise(seed)
        snapshots.append(adapter.flat.clone())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(snapshots[0], snapshots[1])
    assert not torch.equal(snapshots[0], snapshots[2])


def test_a_snapshot_comes_back() -> None:
    """Loading what was taken restores every value; a snapshot is one copy, which later changes do not reach."""
    adapter = _adapter(tiny_llama())
    taken, before = adapter.snapshot(), adapter.flat.clone()
    assert len({tensor.untyped_storage().data_ptr() for tensor in taken.values()}) == 1
    with torch.no_grad():
        adapter.flat.zero_()
    adapter.load(taken)
    assert torch.equal(adapter.flat, before)


@pytest.mark.parametrize("misfit", ["missing", "surplus", "shape"])
def test_a_misfit_is_refused(misfit: str) -> None:
    """One tensor that is missing, too many or of another shape; the message names it and no weight is changed."""
    adapter = _adapter(tiny_llama())
    tensors = {name: torch.zeros_like(tensor) for name, tensor in adapter.snapshot().items()}
    name = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"
    if misfit == "missing":
        del tensors[name]
    elif misfit == "surplus":
        name = "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"
        tensors[name] = torch.zeros(4, 32)
    else:
        tensors[name] = torch.zeros(4, 41)
    before = adapter.flat.clone()
    with pytest.raises(TrainerFailed, match=f"1 tensors differ, the first is {name}"):
        adapter.load(tensors)
    assert torch.equal(adapter.flat, before)


@pytest.mark.parametrize("unknown", ["qkv_proj", "self_attn", "proj", "embed_tokens"])
def test_a_target_that_is_no_linear_layer_is_refused(unknown: str) -> None:
    """Not a module of another kind, nor the end of a name; the model is as it was."""
    model = tiny_llama()
    with pytest.raises(TrainerFailed, match=rf"got \['{unknown}'\]"):
        Adapter(model, ["q_proj", unknown], rank=4, alpha=8.0)
    assert not any(isinstance(module, LoraLinear) for module in model.modules())


def test_an_adapter_needs_a_target() -> None:
    """No names, no adapter."""
    with pytest.raises(TrainerFailed, match="must name linear layers"):
        Adapter(tiny_llama(), [], rank=4, alpha=8.0)


def test_an_adapter_can_be_taken_off() -> None:
    """The model has its own layers again, under their own names, and computes what it did; twice is once."""
    model = tiny_llama()
    layers = dict(model.named_modules())
    adapter = _adapter(model)
    assert dict(model.named_modules()) != layers
    adapter.remove_from(model)
    adapter.remove_from(model)
    assert dict(model.named_modules()) == layers
    assert torch.equal(_logits(model), _logits(tiny_llama()))


def test_settings_of_the_same_layout_fit() -> None:
    """The order of the target modules does not matter; rank, alpha and the modules do."""
    adapter = Adapter(tiny_llama(), TARGETS, rank=4, alpha=8.0)
    assert adapter.fits(TARGETS, rank=4, alpha=8.0)
    assert adapter.fits(tuple(reversed(TARGETS)), rank=4, alpha=8.0)
    assert not adapter.fits(TARGETS, rank=8, alpha=8.0)
    assert not adapter.fits(TARGETS, rank=4, alpha=16.0)
    assert not adapter.fits(TARGETS[:2], rank=4, alpha=8.0)


def test_an_adapter_has_the_model_s_precision() -> None:
    """bf16 beside bf16."""
    adapter = Adapter(tiny_llama().bfloat16(), TARGETS, rank=4, alpha=8.0)
    adapter.initialise(0)
    assert {tensor.dtype for tensor in (adapter.flat, *adapter.snapshot().values())} == {torch.bfloat16}


def test_a_name_says_layer_and_part() -> None:
    """Of PEFT's names, without its wrapper's prefix."""
    name = "base_model.model.model.layers.3.self_attn.k_proj.lora_B.weight"
    assert module_of(name) == ("model.layers.3.self_attn.k_proj", "lora_B")
