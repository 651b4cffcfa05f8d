"""Models whose forward pass asks for more than shapes: experts, heads that look at tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers as tf

from autopeft.api.plan import plan
from autopeft.core.config import PeftConfig
from autopeft.core.errors import StudyError
from autopeft.core.settings import BackboneSettings
from autopeft.memory.flops import count_flops
from autopeft.memory.predict import predict_memory
from autopeft.model.backbone import Backbone, meta_backbone
from tests import backbones
from tests.minilm import lora

_DECODER = backbones._DECODER
KINDS: dict[str, tuple[tf.PreTrainedConfig, str]] = {
    "mixtral": (tf.MixtralConfig(**_DECODER, num_local_experts=4), "causal-lm"),
    "t5": (tf.T5Config(**backbones._T5), "text-classification"),
}
NOTHING = PeftConfig.of([], {"batch_size": 4}, {})


def backbone(name: str, folder: Path, dtype: Any) -> Backbone:
    config, task = KINDS[name]
    config.save_pretrained(folder)
    return meta_backbone(str(folder), BackboneSettings(dtype=dtype), head=task)


@pytest.mark.parametrize("name", KINDS)
def test_memory_and_operations_are_known_in_every_precision(name: str, tmp_path: Path) -> None:
    config, peaks, flops = lora(range(2)), {}, {}
    for dtype in ("float32", "bfloat16"):
        model = backbone(name, tmp_path, dtype)
        flops[dtype] = count_flops(model, config, 4, 16)
        memory = predict_memory(model, config, batch_size=4, sequence_length=16, device="cpu")
        peaks[dtype] = memory.peak
    assert flops["float32"] == flops["bfloat16"]
    assert flops["float32"].training_step > 2 * flops["float32"].forward > 0
    assert peaks["float32"] > peaks["bfloat16"] > 0


@pytest.mark.parametrize("name", KINDS)
def test_experts_and_encoders_count_as_much_as_their_matrices(name: str, tmp_path: Path) -> None:
    model = backbone(name, tmp_path, "float32")
    dense = 2 * 4 * 16 * 2 * {"mixtral": 2 * 3 * 32 * 48, "t5": 2 * 32 * 48}[name]
    assert count_flops(model, NOTHING, 4, 16).forward > dense


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_decoder_of_which_nothing_is_trained_takes_a_forward_pass(
    device: str, tmp_path: Path
) -> None:
    tf.LlamaConfig(**_DECODER, architectures=["LlamaForCausalLM"]).save_pretrained(tmp_path)
    planned = plan("head-only", str(tmp_path), sequence_length=16, device=device)
    parts = planned["peak_memory_parts"]
    assert parts["peft"] == parts["optimizer"] == parts["gradients"] == 0 < parts["activations"]
    assert planned["flops"]["training_step"] == planned["flops"]["forward"] > 0
    assert planned["trainable_params"] == planned["head_params"] == 0


def test_a_model_that_does_not_run_without_data_is_named(tmp_path: Path) -> None:
    config = tf.XLNetConfig(vocab_size=99, d_model=32, n_layer=2, n_head=4, d_inner=48)
    config.save_pretrained(tmp_path)
    model = meta_backbone(str(tmp_path), BackboneSettings(), head="text-classification")
    reason = r"^model: memory and operations of XLNetForSequenceClassification cannot be told"
    with pytest.raises(StudyError, match=reason):
        count_flops(model, NOTHING, 4, 16)
    with pytest.raises(StudyError, match=reason):
        predict_memory(model, NOTHING, batch_size=4, sequence_length=16)
