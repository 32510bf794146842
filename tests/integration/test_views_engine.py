"""Views of the weights that vLLM's own model classes load, with and without its LoRA layers; no engine is started.

vLLM sets up global state for one model (process groups, a configuration, patched functions), so all of its part runs in
another process: this file, run as a module, writes what it found for the tests to judge.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.tiny_decoders import CONFIGS, HIDDEN_SIZE, VOCAB_SIZE, tiny_decoder
from trainer.architectures import adapter_slot
from trainer.views import build_training_model, engine_tensors, shared_with

pytestmark = pytest.mark.engine

CASES: dict[str, dict[str, Any]] = {
    **{name: {"architecture": name, "tie_word_embeddings": False} for name in CONFIGS},
    **{f"{name}, tied": {"architecture": name, "tie_word_embeddings": True} for name in CONFIGS},
    "Llama with biases": {"architecture": "LlamaForCausalLM", "attention_bias": True, "mlp_bias": True},
    "Gemma 3 with biases": {"architecture": "Gemma3ForCausalLM", "attention_bias": True},
    # The checkpoint says fp32: sqrt(32), which scales the embeddings, must be rounded to the engine's dtype instead.
    "Gemma 3 in bf16": {"architecture": "Gemma3ForCausalLM", "dtype": "bfloat16"},
    "Qwen 2 in bf16": {"architecture": "Qwen2ForCausalLM", "dtype": "bfloat16"},
}
LINEARS = (
    *(f"self_attn.{part}_proj" for part in "qkvo"),
    *(f"mlp.{part}_proj" for part in ("gate", "up", "down")),
)
PADDED_VOCAB = 64
"""vLLM pads a vocabulary to a multiple of 64; the model has 48 tokens."""
CHILD_S = 240.0
"""Until vLLM's process is given up; 38 s on two cores, 10 of them imports."""
IDS = [[1, 7, 40, 3, 22, 9, 9, 47, 30, 11, 2, 5]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Per case of CASES what ``_inspect`` returns, as JSON reads it back."""
    folder = tmp_path_factory.mktemp("views")
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.integration.test_views_engine", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    process = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=CHILD_S, check=False
    )
    assert process.returncode == 0, process.stderr[-4000:]
    result: dict[str, dict[str, Any]] = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    return result


@pytest.mark.parametrize("lora", ["plain", "lora"])
@pytest.mark.parametrize("case", CASES)
def test_the_training_model_computes_what_the_checkpoint_does(
    found: dict[str, dict[str, Any]], case: str, lora: str
) -> None:
    """Its logits on vLLM's tensors are those of the checkpoint loaded by Hugging Face, bit for bit."""
    assert found[case][lora]["equal"]
    assert found[case][lora]["logits_std"] > 0.1


@pytest.mark.parametrize("lora", ["plain", "lora"])
@pytest.mark.parametrize("case", CASES)
def test_no_weight_exists_twice(found: dict[str, dict[str, Any]], case: str, lora: str) -> None:
    """Every parameter lies inside one of vLLM's, and those together hold as many values as the parameters."""
    report = found[case][lora]
    assert report["num_shared"] == report["num_parameters"] > 0
    assert report["num_engine_values"] == report["num_values"]


@pytest.mark.parametrize("case", CASES)
def test_vllm_s_names_are_those_of_its_lora_layers(found: dict[str, dict[str, Any]], case: str) -> None:
    """What the views were found under: ``base_layer`` in every linear layer once LoRA is enabled, never before."""
    assert found[case]["plain"]["num_base_layers"] == 0
    assert found[case]["lora"]["num_base_layers"] >= 2 * 4


@pytest.mark.parametrize("case", CASES)
def test_the_vocabulary_is_padded(found: dict[str, dict[str, Any]], case: str) -> None:
    """vLLM's embedding has 64 rows, of which the 48 of real tokens are trained; a tied model has no other head."""
    report = found[case]["plain"]
    names = ["model.embed_tokens.weight"]
    if not CASES[case].get("tie_word_embeddings", False):
        names.append("lm_head.weight")
    assert report["vocabulary"] == {name: [PADDED_VOCAB, HIDDEN_SIZE] for name in names}
    assert report["trained_vocabulary"] == {name: [VOCAB_SIZE, HIDDEN_SIZE] for name in names}


@pytest.mark.parametrize("case", CASES)
def test_an_adapter_s_slot_is_vllm_s(found: dict[str, dict[str, Any]], case: str) -> None:
    """The slice of vLLM's LoRA layer takes B of as many rows as the linear layer has outputs."""
    slots = found[case]["lora"]["slots"]
    model = tiny_decoder(**_settings(case))
    outputs = {name: model.get_submodule(name).out_features for layer in (0, 1) for name in _linears(layer)}
    assert {name: slots[module][index] for name in outputs for module, index in [adapter_slot(name)]} == outputs


def _linears(layer: int) -> list[str]:
    return [f"model.layers.{layer}.{linear}" for linear in LINEARS]


def _settings(case: str) -> dict[str, Any]:
    return {key: value for key, value in CASES[case].items() if key != "dtype"}


def main(folder: Path) -> None:
    """Load every case with vLLM and write ``found.json``."""
    import vllm.v1.worker.cpu_worker  # noqa: F401 - takes from torch's accelerators what a CPU does not have

    from trainer.vllm_changes import keep_plain_weights

    keep_plain_weights()
    _join_alone(folder)
    found = {case: _case(case, folder / str(number)) for number, case in enumerate(CASES)}
    (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")


def _join_alone(folder: Path) -> None:
    """vLLM's model classes ask its process groups for their share of the weights: here all of them."""
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.distributed import ensure_model_parallel_initialized, init_distributed_environment

    with set_current_vllm_config(VllmConfig()):
        init_distributed_environment(1, 0, f"file://{folder / 'store'}", 0, backend="gloo")
        ensure_model_parallel_initialized(1, 1)


def _case(case: str, checkpoint: Path) -> dict[str, Any]:
    """What was found without LoRA and with it, each on a model of its own."""
    dtype = CASES[case].get("dtype", "float32")
    tiny_decoder(**_settings(case)).save_pretrained(checkpoint)
    original = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=getattr(torch, dtype), attn_implementation="sdpa")
    with torch.no_grad():
        logits: Tensor = original.eval()(input_ids=torch.tensor(IDS)).logits
    return {
        name: _load(checkpoint, CASES[case]["architecture"], dtype, logits, lora=name == "lora")
        for name in ("plain", "lora")
    }


def _load(checkpoint: Path, architecture: str, dtype: str, logits: Tensor, *, lora: bool) -> dict[str, Any]:
    from vllm.config import set_current_vllm_config
    from vllm.engine.arg_utils import EngineArgs
    from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager
    from vllm.model_executor.model_loader import get_model
    from vllm.model_executor.models import ModelRegistry

    # A class already loaded is inspected here; a name would be, once, in a process that takes ten seconds.
    ModelRegistry.register_model(architecture, ModelRegistry.models[architecture].load_model_cls())
    arguments = EngineArgs(
        model=str(checkpoint),
        skip_tokenizer_init=True,
        dtype=dtype,
        enforce_eager=True,
        max_model_len=64,
        kv_cache_memory_bytes=1 << 20,
        enable_lora=lora,
        max_loras=1,
        max_lora_rank=8,
    )
    config = arguments.create_engine_config()
    slots: dict[str, list[int]] = {}
    with set_current_vllm_config(config):
        model = get_model(vllm_config=config)
        if lora:
            manager = LRUCacheWorkerLoRAManager(config, torch.device("cpu"), model.embedding_modules)
            model = manager.create_lora_manager(model, config)
            layers = manager._adapter_manager.modules.items()
            slots = {name: [b.shape[2] for b in layer.lora_b_stacked] for name, layer in layers if "proj" in name}
    return _inspect(config.model_config.hf_text_config, dict(model.named_parameters()), logits) | {"slots": slots}


def _inspect(config: Any, engine: dict[str, Tensor], logits: Tensor) -> dict[str, Any]:
    model = build_training_model(config, engine)
    named = dict(model.named_parameters())
    trained = engine_tensors(config, engine)
    with torch.no_grad():
        computed = model(input_ids=torch.tensor(IDS)).logits
    return {
        "equal": torch.equal(computed, logits),
        "logits_std": float(computed.float().std()),
        "num_parameters": len(named),
        "num_shared": shared_with(named.values(), trained.values()),
        "num_values": sum(value.numel() for value in named.values()),
        "num_engine_values": sum(value.numel() for value in trained.values()),
        "num_base_layers": sum(".base_layer." in name for name in engine),
        "vocabulary": {
            name.replace(".base_layer", ""): list(value.shape)
            for name, value in engine.items()
            if "embed_tokens" in name or "lm_head" in name
        },
        "trained_vocabulary": {
            name: list(value.shape) for name, value in trained.items() if "embed_tokens" in name or "lm_head" in name
        },
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
