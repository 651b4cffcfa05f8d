"""Small language models whose words are whole tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing


def words_tokenizer(words: Sequence[str], **special: Any) -> tf.PreTrainedTokenizerFast:
    """A token for each word, `<eos>` and `<unk>` among them."""
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<eos>", unk_token="<unk>", **special
    )


def save_decoder(folder: Path, tokenizer: tf.PreTrainedTokenizerFast, **sizes: Any) -> Path:
    """Saves a tokenizer and a model of two layers for it, the same each time."""
    tokenizer.save_pretrained(folder)
    config = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "eos_token_id": 0,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = tf.LlamaForCausalLM(tf.LlamaConfig(vocab_size=len(tokenizer), **config | sizes))
        model.save_pretrained(folder)
    return folder


def save_translator(folder: Path, words: Sequence[str], kind: str = "bart") -> Path:
    """Saves a tokenizer and a model of two layers on each side, the same each time.

    Args:
        folder: where.
        words: `<eos>`, the first, also starts, ends and fills up texts.
        kind: `bart` or `t5`.
    """
    tokenizer = words_tokenizer(words, pad_token="<eos>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 0)]
    )
    tokenizer.save_pretrained(folder)
    ids = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 0}
    bart = {
        **{f"{side}_layers": 2 for side in ("encoder", "decoder")},
        **{f"{side}_attention_heads": 4 for side in ("encoder", "decoder")},
        **{f"{side}_ffn_dim": 48 for side in ("encoder", "decoder")},
        "max_position_embeddings": 64,
        "dropout": 0.0,
        "init_std": 0.3,
        "forced_eos_token_id": None,
    }
    t5 = {"d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
    shared = {"vocab_size": len(tokenizer), "d_model": 32, **ids}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "bart":
            tf.BartForConditionalGeneration(tf.BartConfig(**shared, **bart)).save_pretrained(folder)
        else:
            tf.T5ForConditionalGeneration(tf.T5Config(**shared, **t5)).save_pretrained(folder)
    return folder


def save_viewer(folder: Path, n_labels: int = 2) -> Path:
    """Saves a model of images of 16 x 16 pixels with three layers, the same each time."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
    config = tf.ViTConfig(
        image_size=16,
        patch_size=4,
        num_attention_heads=4,
        num_labels=n_labels,
        initializer_range=0.2,
        **sizes,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tf.ViTForImageClassification(config).save_pretrained(folder)
    tf.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder
