"""The served model as a backbone of reward models: no second copy of its layers."""

import copy
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from agent.errors import TrainerFailed
from rewards.models.backbone import Backbone, Classifier
from rewards.models.calibration import IDENTITY
from rewards.models.encoding import RewardEncoder
from rewards.models.manifest import RewardManifest, write_manifest
from service.bench.tokenizer import train_tokenizer
from tests.tiny_decoders import CONFIGS, tiny_decoder
from trainer import messages
from trainer.lanes import open_lanes
from trainer.pacer import Pacer
from trainer.reward_desk import RewardDesk
from trainer.served_scorer import served_scorer

CPU = torch.device("cpu")
ROWS = [[1, 5, 9, 40, 3], [1, 17]]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer()


def _fused(own: dict[str, Tensor]) -> dict[str, Tensor]:
    """As vLLM holds them: q, k and v in one tensor, gate and up in another."""
    engine: dict[str, Tensor] = {}
    for name, value in own.items():
        if ".q_proj." in name:
            parts = [own[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            engine[name.replace("q_proj", "qkv_proj")] = torch.cat(parts)
        elif ".gate_proj." in name:
            engine[name.replace("gate_proj", "gate_up_proj")] = torch.cat([value, own[name.replace("gate", "up")]])
        elif not any(f".{part}_proj." in name for part in ("k", "v", "up")):
            engine[name] = value
    return {name: value.detach().clone() for name, value in engine.items()}


@pytest.mark.parametrize("architecture", sorted(CONFIGS))
def test_its_layers_are_the_engines_and_score_as_a_copy_would(
    architecture: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """With one adapter and head, transformers' own class on copied weights gives the same logits."""
    decoder = tiny_decoder(architecture)
    engine = _fused(dict(decoder.named_parameters()))
    classifier = served_scorer(decoder.config, engine, tokenizer)
    assert not classifier.has_head
    reference, folder = _reference(architecture, tmp_path)
    backbone = Backbone(classifier)
    backbone.load_adapter("de_v1", folder)
    with torch.no_grad():
        expected = [reference(torch.tensor([row])).logits[0, 0].item() for row in ROWS]
    assert backbone.scores(ROWS, "de_v1") == pytest.approx(expected, abs=1e-4)
    addresses = [(tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes) for tensor in engine.values()]
    own = [
        tensor
        for tensor in backbone.tensors()
        if not any(start <= tensor.data_ptr() < stop for start, stop in addresses)
    ]
    hidden = decoder.config.hidden_size
    assert sorted({tensor.numel() for tensor in own if tensor.shape[0] == 1}) == [hidden]
    assert len(own) == 2 + 2 * 2 * 2  # two heads; A and B of q_proj and v_proj in two layers


def test_scores_are_told_apart_by_less_than_16_bits_can(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """On an engine of bf16 the head computes in fp32: of 30 scores hardly one is a number that bf16 has (1 in 65,536
    of fp32's)."""
    decoder = tiny_decoder("LlamaForCausalLM").bfloat16()
    backbone = Backbone(served_scorer(decoder.config, _fused(dict(decoder.named_parameters())), tokenizer))
    backbone.load_adapter("de_v1", _reference("LlamaForCausalLM", tmp_path)[1])
    scores = backbone.scores([[1, 5, token] for token in range(10, 40)], "de_v1")
    assert sum(score == torch.tensor(score).bfloat16().item() for score in scores) <= 1


def _reference(architecture: str, root: Path) -> tuple[torch.nn.Module, Path]:
    """A copy of the model with an adapter, and the adapter's folder."""
    decoder = tiny_decoder(architecture)
    config = copy.deepcopy(decoder.config)
    config.num_labels = 1
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
    model.base_model.load_state_dict(decoder.base_model.state_dict())
    adapted = get_peft_model(
        model, LoraConfig(task_type=TaskType.SEQ_CLS, r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"])
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.normal_(0.0, 0.3, generator=generator)
    folder = root / "de" / "v1"
    folder.mkdir(parents=True)
    adapted.save_pretrained(str(folder))
    write_manifest(folder, RewardManifest(1, "de", "served", "2026-01-01T00:00:00Z", 1, None, IDENTITY, {}))
    return adapted.eval(), folder


def test_only_what_is_not_the_engines_counts_as_the_desks_memory(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """A head of 32 numbers in fp32: 128 bytes."""
    decoder = tiny_decoder("Qwen3ForCausalLM")
    tokenizer.save_pretrained(tmp_path)
    engine = _fused(dict(decoder.named_parameters()))

    def served(encoder: RewardEncoder) -> Classifier:
        return served_scorer(decoder.config, engine, encoder.tokenizer)

    desk = RewardDesk(open_lanes(CPU), Pacer((), "a CPU"), CPU, served=served)
    facts = desk.open(messages.OpenBackbone("served", str(tmp_path), shares=True, device="engine"))
    assert facts.size_bytes == desk.size_bytes == 128


def test_an_engine_with_other_parameters_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    """Nothing is judged on a guess."""
    decoder = tiny_decoder("LlamaForCausalLM")
    engine = _fused(dict(decoder.named_parameters()))
    engine.pop("model.norm.weight")
    with pytest.raises(TrainerFailed, match=r"model\.norm\.weight has no home"):
        served_scorer(decoder.config, engine, tokenizer)
