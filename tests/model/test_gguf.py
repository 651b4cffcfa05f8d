"""Models that come as one GGUF file, against the model that was written into it."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers as tf

from autopeft.core.errors import StudyError
from autopeft.core.settings import BackboneSettings
from autopeft.model.backbone import load_backbone, meta_backbone
from autopeft.model.fingerprint import fingerprint

HEADS, LAYERS = 4, 2
VOCABULARY = ["<eos>", "<unk>", "ab", *(chr(n) for n in range(ord("a"), ord("z") + 1))]
NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def rotated(weight: np.ndarray) -> np.ndarray:
    """Queries and keys as GGUF has them: the two halves of each head turn by turn."""
    rows, columns = weight.shape
    return weight.reshape(HEADS, 2, rows // HEADS // 2, columns).swapaxes(1, 2).reshape(rows, -1)


def tensors(model: tf.LlamaForCausalLM) -> dict[str, np.ndarray]:
    state = {name: t.detach().numpy() for name, t in model.state_dict().items()}
    named = {
        "token_embd.weight": state["model.embed_tokens.weight"],
        "output_norm.weight": state["model.norm.weight"],
        "output.weight": state["lm_head.weight"],
    }
    for layer in range(LAYERS):
        for ours, theirs in NAMES.items():
            weight = state[f"model.layers.{layer}.{ours}.weight"]
            turned = rotated(weight) if theirs in ("attn_q", "attn_k") else weight
            named[f"blk.{layer}.{theirs}.weight"] = np.ascontiguousarray(turned)
    return named


@pytest.fixture
def original() -> tf.LlamaForCausalLM:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return tf.LlamaForCausalLM(
            tf.LlamaConfig(
                vocab_size=len(VOCABULARY),
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=LAYERS,
                num_attention_heads=HEADS,
                max_position_embeddings=64,
            )
        ).eval()


@pytest.fixture
def file(original: tf.LlamaForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTOPEFT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "model" / "tiny.gguf"
    path.parent.mkdir()
    config = original.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(VOCABULARY))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(VOCABULARY)
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)
    writer.add_unk_token_id(1)
    for name, weight in tensors(original).items():
        writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_model_is_the_one_that_was_written(
    original: tf.LlamaForCausalLM, file: Path, tmp_path: Path
) -> None:
    settings, ids = BackboneSettings(dtype="float32"), torch.arange(2, 12)[None]
    for reference in (file, file.parent):
        backbone = load_backbone(str(reference), "causal-lm", settings, n_labels=1, device="cpu")
        with torch.no_grad():
            assert torch.allclose(backbone.model(ids).logits, original(ids).logits, atol=1e-5)
        assert backbone.reader is not None
        assert backbone.reader("abc")["input_ids"][-2:] == [2, 5]
        assert meta_backbone(str(reference), settings).shape == backbone.shape
    assert len([*(tmp_path / "cache" / "gguf").glob("*/model.safetensors")]) == 1


def test_another_file_is_another_model(file: Path) -> None:
    before = fingerprint(str(file.parent))
    assert before == fingerprint(str(file))
    with file.open("r+b") as content:
        content.seek(-4, 2)
        content.write(b"\1\2\3\4")
    assert fingerprint(str(file)) != before


def test_what_cannot_be_read_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file.parent / "other.gguf").write_bytes(b"no model")
    with pytest.raises(StudyError, match=r"^model: .*several models, name one of other.gguf, tiny"):
        meta_backbone(str(file.parent), BackboneSettings())
    with pytest.raises(StudyError, match=r"^model: .*other.gguf' cannot be used"):
        meta_backbone(str(file.parent / "other.gguf"), BackboneSettings())
    monkeypatch.setattr("autopeft.model.gguf.find_spec", lambda name: None)
    with pytest.raises(StudyError, match=r"^model: .*needs the package gguf; install it with"):
        meta_backbone(str(file), BackboneSettings())
