"""Models that come with code of their own, which runs only by the word of the study."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers as tf

import autopeft
from autopeft.api.run import prepare
from autopeft.core.errors import StudyError
from tests import tiny
from tests.exports import run_card
from tests.small_models import words_tokenizer

OWN = """
from transformers import BertConfig, BertForSequenceClassification

class OwnConfig(BertConfig):
    model_type = "own"

class OwnForSequenceClassification(BertForSequenceClassification):
    config_class = OwnConfig
"""
AUTO = "AutoModelForSequenceClassification"
WORDS = ["<eos>", "<unk>", "a", "film", "funny", "dull", "year", "boredom", "clever", "acted"]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """BERT under another name."""
    folder = tmp_path / "own"
    words_tokenizer(WORDS, pad_token="<eos>").save_pretrained(folder)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    config = tf.BertConfig(vocab_size=len(WORDS), num_attention_heads=2, **sizes)
    tf.BertModel(config).save_pretrained(folder)
    named = json.loads((folder / "config.json").read_text())
    autos = {"AutoConfig": "own.OwnConfig", AUTO: "own.OwnForSequenceClassification"}
    (folder / "config.json").write_text(
        json.dumps({**named, "model_type": "own", "auto_map": autos})
    )
    (folder / "own.py").write_text(OWN)
    return folder


def test_it_runs_where_the_study_says_so(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    document = {**tiny.study(tmp_path), "name": "own", "model": str(own)}
    document["search"] = {"n_trials": 1, "n_finalists": 0}
    document["space"] = {"place": [{"method": "lora", "r": {"choice": [2, 4]}}]}
    with pytest.raises(StudyError, match=r"^own: model: .* says trust_remote_code: true$"):
        prepare(document)
    document["trust_remote_code"] = True
    with caplog.at_level(logging.WARNING, "autopeft"):
        outcome = autopeft.run(document)
    assert f"code that comes with {own} runs, as trust_remote_code says" in caplog.messages
    assert [trial.state for trial in outcome.trials] == ["complete"]
    page = outcome.report(tmp_path / "page").read_text()
    assert "<dt>code of the model</dt><dd>runs</dd>" in page
    folders = {
        form: autopeft.export(outcome, tmp_path / form, trial=0, format=form)
        for form in ("native", "merged")
    }
    loaded = [run_card(folder)["model"] for folder in folders.values()]
    assert {type(model).__name__ for model in loaded} == {"OwnForSequenceClassification"}
    ids = torch.tensor([[2, 4, 3]])
    with torch.no_grad():
        native, merged = (model(input_ids=ids).logits for model in loaded)
    assert torch.allclose(native, merged, atol=1e-5)
    (own / "own.py").write_text(OWN + "\n# changed\n")
    with pytest.raises(StudyError, match="begun with another model: code is"):
        autopeft.run(document)


def test_nothing_is_asked_on_a_terminal(own: Path, tmp_path: Path) -> None:
    code = f"import autopeft; autopeft.plan('lora', {str(own)!r})"
    said = subprocess.run(
        [sys.executable, "-c", code], input="y\n", capture_output=True, text=True, timeout=120
    )
    assert said.returncode == 1
    assert "needs its own code" in said.stderr
    assert "[y/N]" not in said.stdout + said.stderr
