from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers as tf

from autopeft.core.config import PeftConfig
from autopeft.core.errors import ExportError
from autopeft.exporter import Trained, onnx
from tests.backbones import inputs, tiny
from tests.contracts.exporter import PREFIX, adapter, backbone, exported, lora, train

MIX = PeftConfig.of([lora([0]), adapter([1]), adapter([0], "parallel"), PREFIX])


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
