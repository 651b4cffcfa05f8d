"""Backbones of published shapes with random weights, made here without any download."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from autopeft.core.settings import BackboneSettings
from autopeft.model.backbone import Backbone, load_backbone, meta_backbone
from autopeft.model.quicken import quicken

TASK = "text-classification"
_BERT = {"architectures": ["BertForSequenceClassification"]}
_LLAMA = {
    "architectures": ["LlamaForSequenceClassification"],
    "vocab_size": 128_256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
}
_TINY = {
    "vocab_size": 99,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}
CONFIGS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "BERT-base 0.1B": ("BertConfig", _BERT),
    "Llama 1.2B": ("LlamaConfig", _LLAMA),
    "BERT tiny": ("BertConfig", _BERT | _TINY),
    "Llama tiny": ("LlamaConfig", _LLAMA | _TINY | {"num_key_value_heads": 2}),
}
"""Configuration class of transformers and what differs from its defaults, by name."""


def folder_of(name: str, folder: Path) -> str:
    """The model as a folder that holds weights in bfloat16 and a tokenizer; made once."""
    path = folder / name.replace(" ", "-")
    if not (path / "tokenizer.json").is_file():
        kind, arguments = CONFIGS[name]
        config = getattr(transformers, kind)(**arguments)
        torch.manual_seed(0)
        auto = transformers.AutoModelForSequenceClassification
        auto.from_config(config, dtype=torch.bfloat16).save_pretrained(path)
        _tokenizer().save_pretrained(path)
    return str(path)


def _tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Words of one letter; the benchmarks make their ids themselves."""
    words = {"[PAD]": 0, "[UNK]": 1, **{letter: i for i, letter in enumerate("abcdef", 2)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
    )


def both(source: str, settings: BackboneSettings, device: str) -> tuple[Backbone, Backbone]:
    """The model in the form of `settings`, without weights and on the device.

    The one without weights has the precision and not the quantization, as predictions want it.
    """
    meta = meta_backbone(source, settings, head=TASK, device=device)
    return meta, quickened(load_backbone(source, TASK, settings, n_labels=2, device=device))


def quickened(backbone: Backbone) -> Backbone:
    """The backbone as the trainer has it, for good."""
    quicken(backbone.model, backbone.device.type, ExitStack())
    return backbone
