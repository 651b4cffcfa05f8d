"""Measures a model on a split."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from autopeft.train.backbone import Backbone
from autopeft.train.batches import Encoded, by_length
from autopeft.train.task import measure

_MAX_TOKENS = {"cpu": 2048}  # fastest on one thread, where larger batches leave the cache
_MAX_TOKENS_ELSEWHERE = 16_384


@torch.inference_mode()
def evaluate(backbone: Backbone, split: Encoded) -> dict[str, float]:
    """Every metric of the model as it is, in eval mode, with `loss` and `n_examples`."""
    model = backbone.model.eval()
    labels, predictions, loss = [], [], 0.0
    max_tokens = _MAX_TOKENS.get(backbone.device.type, _MAX_TOKENS_ELSEWHERE)
    for rows in by_length(split.lengths, max_tokens):
        batch = split.batch(rows, backbone.device)
        logits = model(**batch.inputs).logits.float()
        loss += F.cross_entropy(logits, batch.labels, reduction="sum").item()
        labels += batch.labels.tolist()
        predictions += logits.argmax(-1).tolist()
    n_examples = len(split)
    return {**measure(labels, predictions), "loss": loss / n_examples, "n_examples": n_examples}
