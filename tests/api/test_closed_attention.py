"""Spaces that a backbone's architecture cannot take."""

import pytest
import transformers as tf

from autopeft.api.plan import plan
from autopeft.core.errors import AttachError


@pytest.mark.parametrize("kind", [tf.BloomConfig, tf.MPNetConfig])
@pytest.mark.parametrize("nested", [False, True])
def test_prefixes_in_closed_attention_are_refused_before_training(kind, nested, tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 99}
    kind(**sizes).save_pretrained(tmp_path)
    prefix = {"method": "prefix", "length": {"choice": [2, 4]}}
    lora = {"method": "lora", "r": 2}
    space = {"name": "s", "place": [{"choice": [lora, prefix]} if nested else prefix, lora]}
    reason = "does not run its attention through .*, which prefix needs"
    with pytest.raises(AttachError, match=reason):
        plan(space, str(tmp_path), task="text-classification", sequence_length=8)


@pytest.mark.parametrize(
    ("option", "place"),
    [
        ("use_gating", {"method": "lora", "r": 2}),
        ("adaptive", {"method": "prefix", "length": 2}),
    ],
)
def test_gates_in_a_causal_model_are_refused_before_training(option, place, tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 99}
    tf.LlamaConfig(**sizes, intermediate_size=48).save_pretrained(tmp_path)
    space = {"name": "s", "place": [{**place, option: {"choice": [True, False]}}]}
    with pytest.raises(AttachError, match=f"{option}: a gate averages over the whole text"):
        plan(space, str(tmp_path), task="text-classification", sequence_length=8)
