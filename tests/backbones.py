"""Tiny backbones with random weights and an input batch for each, by name of the architecture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers as tf
from torch import Tensor

Inputs = dict[str, Tensor]
LAYERS = 2

_ENCODER = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
_DECODER = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
_BART = {
    "vocab_size": 99,
    "d_model": 32,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "decoder_start_token_id": 0,
    "dropout": 0.0,
}
_T5 = {
    "vocab_size": 99,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": LAYERS,
    "num_heads": 4,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.0,
}
_GPT2 = {
    "vocab_size": 99,
    "n_embd": 32,
    "n_layer": LAYERS,
    "n_head": 4,
    "n_inner": 48,
    "n_positions": 64,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
}
_DISTILBERT = {
    "vocab_size": 99,
    "dim": 32,
    "n_layers": LAYERS,
    "n_heads": 4,
    "hidden_dim": 48,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "seq_classif_dropout": 0.0,
}
_OPT = {
    "vocab_size": 99,
    "hidden_size": 32,
    "word_embed_proj_dim": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "ffn_dim": 48,
    "max_position_embeddings": 64,
    "dropout": 0.0,
}
_VIT = {
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 16,
    "patch_size": 4,
    "hidden_dropout_prob": 0.0,
}
_DEBERTA = {
    **_ENCODER,
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "position_buckets": 8,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
}

_BLOOM = {"vocab_size": 99, "hidden_size": 32, "n_layer": LAYERS, "n_head": 4}
_FALCON = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_kv_heads": 2,
    "bias": True,
    "new_decoder_architecture": True,
}

_CLASSIFIER = tf.AutoModelForSequenceClassification
_SEQ2SEQ = tf.AutoModelForSeq2SeqLM
_CAUSAL = tf.AutoModelForCausalLM

_ALL: Mapping[str, tuple[Any, Callable[..., Any], dict[str, Any]]] = {
    "bert": (_CLASSIFIER, tf.BertConfig, _ENCODER),
    "roberta": (_CLASSIFIER, tf.RobertaConfig, {**_ENCODER, "pad_token_id": 0}),
    "distilbert": (_CLASSIFIER, tf.DistilBertConfig, _DISTILBERT),
    "gpt2": (_CAUSAL, tf.GPT2Config, _GPT2),
    "llama": (_CAUSAL, tf.LlamaConfig, _DECODER),
    "gemma": (_CAUSAL, tf.GemmaConfig, {**_DECODER, "head_dim": 8}),
    "qwen2": (_CAUSAL, tf.Qwen2Config, _DECODER),
    "mistral": (_CAUSAL, tf.MistralConfig, {**_DECODER, "sliding_window": 4}),
    "gpt_neox": (_CAUSAL, tf.GPTNeoXConfig, _ENCODER),
    "bloom": (_CAUSAL, tf.BloomConfig, _BLOOM),
    "falcon": (_CAUSAL, tf.FalconConfig, _FALCON),
    "mpnet": (_CLASSIFIER, tf.MPNetConfig, _ENCODER),
    "albert": (_CLASSIFIER, tf.AlbertConfig, {**_ENCODER, "embedding_size": 16}),
    "opt": (_CAUSAL, tf.OPTConfig, _OPT),
    "phi3": (_CAUSAL, tf.Phi3Config, _DECODER),
    "t5": (_SEQ2SEQ, tf.T5Config, _T5),
    "bart": (_SEQ2SEQ, tf.BartConfig, _BART),
    "vit": (tf.AutoModelForImageClassification, tf.ViTConfig, _VIT),
    "deberta-v2": (_CLASSIFIER, tf.DebertaV2Config, _DEBERTA),
}

ARCHITECTURES = ("bert", "roberta", "distilbert", "gpt2", "llama", "qwen2", "t5", "bart", "vit")
"""What every method is attached to."""


def tiny(name: str, **overrides: Any) -> tf.PreTrainedModel:
    """A frozen-size model of the architecture in evaluation mode; the same weights every time.

    Weight matrices are louder than at usual initialisation, where attention is almost uniform.
    """
    auto, config, options = _ALL[name]
    implementation = overrides.pop("attn_implementation", None)
    chosen = {} if implementation is None else {"attn_implementation": implementation}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = auto.from_config(config(**{**options, **overrides}), **chosen).eval()
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.data.mul_(3)
            else:
                parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


def inputs(name: str, padded: bool = True, rows: int = 3) -> Inputs:
    """Some examples; the texts have 8, 6 and 4 tokens in turn where `padded`, else 8 each."""
    generator = torch.Generator().manual_seed(1)
    if name == "vit":
        return {"pixel_values": torch.randn(rows, 3, 16, 16, generator=generator)}
    ids = torch.randint(5, 99, (rows, 8), generator=generator)
    mask = torch.ones_like(ids)
    if padded:
        mask[1::3, 6:], mask[2::3, 4:] = 0, 0
    batch = {"input_ids": ids * mask, "attention_mask": mask}
    if name in ("t5", "bart"):
        batch["decoder_input_ids"] = ids[:, :5].contiguous()
    return batch


def logits(model: tf.PreTrainedModel, batch: Inputs) -> Tensor:
    """The output of the task head."""
    result: Tensor = model(**batch).logits
    return result
