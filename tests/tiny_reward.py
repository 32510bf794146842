"""Tiny reward models: a random Llama with a head of one output, and adapters of languages as PEFT saves them."""

from pathlib import Path

import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import LlamaConfig, LlamaForSequenceClassification

from rewards.models.backbone import load_classifier
from rewards.models.calibration import IDENTITY, Calibration
from rewards.models.encoding import RewardEncoder
from rewards.models.manifest import RewardManifest, version_folder, write_manifest
from service.bench.tokenizer import train_tokenizer

CREATED_AT = "2026-01-01T00:00:00Z"


def save_tiny_scorer(folder: Path, *, seed: int = 0) -> Path:
    """Write a random sequence-classification Llama of about 100,000 parameters, with a head and a tokenizer."""
    tokenizer = train_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config.num_labels = 1
    LlamaForSequenceClassification(config).float().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_tiny_adapter(
    root: Path, language: str, backbone: Path, *, version: int = 1, seed: int = 1, calibration: Calibration = IDENTITY
) -> Path:
    """Write a random adapter with a head below ``root``, with its manifest; returns the version's folder."""
    model = load_classifier(str(backbone), RewardEncoder.load(str(backbone)).tokenizer).model
    targets = ["q_proj", "v_proj"]
    adapted = get_peft_model(model, LoraConfig(task_type=TaskType.SEQ_CLS, r=2, lora_alpha=4, target_modules=targets))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.normal_(0.0, 0.3, generator=generator)
    folder = version_folder(root, language, version)
    folder.mkdir(parents=True)
    adapted.save_pretrained(str(folder))
    manifest = RewardManifest(version, language, str(backbone), CREATED_AT, 40, 0.75, calibration, {})
    write_manifest(folder, manifest)
    return folder
