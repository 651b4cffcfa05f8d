"""Fixtures and examples of the whole suite."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import settings

from autopeft.train.trainer import Trainer
from tests.minilm import MINILM, exact, movies
from tests.small_models import save_decoder, words_tokenizer

settings.register_profile("few", derandomize=True, deadline=None, max_examples=40)
settings.register_profile("many", deadline=None, max_examples=1000)
settings.load_profile("few")


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
    return save_decoder(tmp_path, words_tokenizer(words), num_key_value_heads=2)
