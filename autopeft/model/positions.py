"""How many tokens a backbone takes."""

from __future__ import annotations

import sys

from torch import nn
from transformers import PreTrainedModel


def positions(model: PreTrainedModel) -> int:
    """The greatest number of tokens that a model takes, `sys.maxsize` where there is no limit.

    Tables of positions that have a padding index begin behind it, as RoBERTa's do.
    """
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 0
    rows = [
        table.num_embeddings - table.padding_idx - 1
        for name, table in model.named_modules()
        if name.endswith(".position_embeddings")
        and isinstance(table, nn.Embedding)
        and table.padding_idx is not None
    ]
    return min([most if most > 0 else sys.maxsize, *rows])
