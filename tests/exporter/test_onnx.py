from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import transformers as tf

from autopeft.core.config import PeftConfig
from autopeft.core.errors import ExportError
from autopeft.exporter import Trained, onnx
from autopeft.model.head import TargetTokens
from tests.backbones import inputs, tiny
from tests.contracts.exporter import PREFIX, adapter, backbone, exported, lora, train

MIX = PeftConfig.of([lora([0]), adapter([1]), adapter([0], "parallel"), PREFIX])


def test_texts_and_targets_have_lengths_of_their_own(tmp_path: Path) -> None:
    on = replace(backbone(tiny("t5")), criterion=TargetTokens())
    trained, _ = train(on, MIX, inputs("t5"))
    exported("onnx", trained, tmp_path / "out")
    session = onnxruntime.InferenceSession(tmp_path / "out/model.onnx")
    axes = {each.name: each.shape for each in session.get_inputs()}
    assert axes == {
        "input_ids": ["batch", "sequence"],
        "attention_mask": ["batch", "sequence"],
        "decoder_input_ids": ["batch", "target"],
    }
    batch = inputs("t5", rows=2)
    batch["decoder_input_ids"] = torch.arange(6).view(2, 3)
    with trained.attached(), torch.no_grad():
        expected = on.model.eval()(**batch).logits.numpy()
    (outputs,) = session.run(None, {name: batch[name].numpy() for name in axes})
    assert np.abs(outputs - expected).max() < 1e-4


def test_a_graph_that_says_something_else_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, _ = train(backbone(tiny("bert")), MIX, inputs("bert"))
    export = torch.onnx.export

    def without_parts(graph: torch.nn.Module, *args: object, **options: object) -> None:
        plain = onnx._Graph(tiny("bert"), graph._names)
        export(plain, *args, **options)

    monkeypatch.setattr(torch.onnx, "export", without_parts)
    with pytest.raises(ExportError, match="the graph of BertForSequenceClassification is off by"):
        exported("onnx", trained, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_a_graph_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained, _ = train(backbone(tiny("bert")), MIX, inputs("bert"))
    monkeypatch.setattr(onnx, "find_spec", lambda name: None if name == "onnxscript" else True)
    with pytest.raises(ExportError, match=r"needs onnxscript: pip install 'autopeft\[onnx\]'"):
        exported("onnx", trained, tmp_path / "out")
    monkeypatch.undo()

    def raises(*args: object, **options: object) -> None:
        raise ValueError("cannot look into a tensor")

    monkeypatch.setattr(tf.BertForSequenceClassification, "forward", raises)
    with pytest.raises(ExportError, match=r"is no graph: cannot look into a tensor"):
        exported("onnx", Trained(trained.backbone, trained.config, trained.state), tmp_path / "o")
    assert list(tmp_path.iterdir()) == []
