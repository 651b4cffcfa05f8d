"""How many tokens a backbone takes."""

from __future__ import annotations

import sys

from torch import nn
from transformers import PreTrainedModel

_NAMES = ("max_position_embeddings", "max_seq_len")
_OF_STACKS = {False: "max_encoder_position_embeddings", True: "max_decoder_position_embeddings"}


def positions(model: PreTrainedModel, *, writes: bool = False) -> int:
    """The greatest number of tokens that a model takes, `sys.maxsize` where there is no limit.

    Tables of positions that have a padding index begin behind it, as RoBERTa's do.

    Args:
        model: with or without weights.
        writes: whether tokens are meant that the decoder reads, where there is an encoder, too.
    """
    config = model.config.get_text_config()
    given = (getattr(config, name, None) for name in (_OF_STACKS[writes], *_NAMES))
    most = next(filter(None, given), 0)
    rows = [
        table.num_embeddings - table.padding_idx - 1
        for name, table in model.named_modules()
        if name.endswith(".position_embeddings")
        and isinstance(table, nn.Embedding)
        and table.padding_idx is not None
    ]
    return min([most if most > 0 else sys.maxsize, *rows])
