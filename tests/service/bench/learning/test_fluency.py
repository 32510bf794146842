"""Fluency under the untuned model, on a tiny one."""

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from agent.brief import Brief, Kind
from rewards.score import Score, Ungradable
from service.bench.learning.exam import reply_sample
from service.bench.learning.fluency import MODEL_VARIABLE, FluencyJudge, fluency_value
from tests.tiny_model import save_tiny_llama

BRIEF = Brief("bench", Kind.CREATE, "en", instructions="x")
TEXTS = ("All human beings are born free.", "free", "")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = save_tiny_llama(tmp_path / "tiny")
    monkeypatch.setenv(MODEL_VARIABLE, str(folder))
    return folder


def mean_by_hand(folder: Path, text: str) -> float:
    """One text alone, one position at a time."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    opening, ids = tokenizer("\n\n")["input_ids"], tokenizer(text, add_special_tokens=False)["input_ids"]
    total = 0.0
    for place, token in enumerate(ids):
        with torch.no_grad():
            logits = model(torch.tensor([[*opening, *ids[:place]]])).logits[0, -1]
        total += float(logits.log_softmax(-1)[token])
    return total / len(ids)


def test_the_value_is_a_half_at_minus_four_nats() -> None:
    """sigmoid(0) = 0.5; sigmoid(2) = 1 / (1 + e^-2) at -2 nats."""
    assert fluency_value(-4.0) == 0.5
    assert fluency_value(-2.0) == pytest.approx(1 / (1 + math.exp(-2)))


def test_a_reply_is_worth_its_mean_logprob_and_padding_changes_nothing(folder: Path) -> None:
    """Judged together, a long, a short and an empty reply get what each gets alone."""
    scores = FluencyJudge().score([reply_sample(BRIEF, text, 1, truncated=False) for text in TEXTS])
    for text, score in zip(TEXTS[:2], scores[:2], strict=True):
        assert isinstance(score, Score)
        assert score.value == pytest.approx(fluency_value(mean_by_hand(folder, text)), abs=1e-5)
    assert isinstance(scores[2], Ungradable)
