"""A training step without data: batches of the meta device and the loss of a model on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from autopeft.core.errors import AutoPeftError, StudyError
from autopeft.model.depth import image_shape

Batch = dict[str, Tensor]


@contextmanager
def padded_model(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """The model with the tokens for padding and for the start of a target, if it names none.

    Some heads refuse a batch without them.
    """
    configs = {id(c): c for c in (model.config, model.config.get_text_config())}.values()
    names = (
        "pad_token_id",
        *(("decoder_start_token_id",) if model.config.is_encoder_decoder else ()),
    )
    nameless = [(c, name) for c in configs for name in names if getattr(c, name, None) is None]
    for config, name in nameless:
        setattr(config, name, 0)
    try:
        yield model
    finally:
        for config, name in nameless:
            setattr(config, name, None)


@contextmanager
def traced(model: PreTrainedModel) -> Iterator[None]:
    """Errors of a model that does not run without data are those of a study.

    Raises:
        StudyError: the block raises anything but an error of its own.
    """
    try:
        yield
    except AutoPeftError:
        raise
    except Exception as error:  # a model can raise anything where it looks at values
        what = f"memory and operations of {type(model).__name__} cannot be told before training"
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise StudyError(f"{what}; without data it fails: {reason}", "model") from error


def batch_of(model: PreTrainedModel, batch_size: int, length: int) -> Batch:
    """What a model is trained on, on the meta device.

    Returns:
        Token ids, mask and segments (batch, length) or pixels (batch, channels, height, width), and
        `labels`: (batch,), or (batch, length) for a model that generates.
    """
    images = image_shape(model, batch_size)
    if images is not None:
        return {"pixel_values": _empty(*images, dtype=torch.float32), "labels": _empty(batch_size)}
    batch = {name: _empty(batch_size, length) for name in ("input_ids", "attention_mask")}
    if getattr(model.config, "type_vocab_size", 0) > 1:
        batch["token_type_ids"] = _empty(batch_size, length)
    batch["labels"] = _empty(batch_size, length) if _generates(model) else _empty(batch_size)
    return batch


def _empty(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def outputs_of(model: PreTrainedModel, batch: Batch) -> ModelOutput:
    """What the model returns; it sees the labels only if it generates."""
    hidden = () if _generates(model) else ("labels",)
    return model(**{name: tensor for name, tensor in batch.items() if name not in hidden})


def loss_of(outputs: ModelOutput, batch: Batch, smoothing: float = 0.0) -> Tensor:
    """A scalar: cross entropy of one label an example, or the model's own of one a token."""
    if "loss" in outputs:
        return outputs.loss
    return F.cross_entropy(outputs.logits.float(), batch["labels"], label_smoothing=smoothing)


def _generates(model: PreTrainedModel) -> bool:
    return model.get_output_embeddings() is not None
