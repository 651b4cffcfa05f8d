"""Small decoders whose words are whole tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers


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
