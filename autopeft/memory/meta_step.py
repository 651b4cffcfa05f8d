"""A training step without data: batches of the meta device and the loss of a model on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from autopeft.core.errors import AutoPeftError, StudyError
from autopeft.model.head import Criterion
from autopeft.model.lower_layers import image_shape

MetaBatch = dict[str, Tensor]


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


def batch_of(
    model: PreTrainedModel, criterion: Criterion, batch_size: int, length: int
) -> MetaBatch:
    """What a model is trained on, on the meta device.

    Returns:
        Token ids, mask and segments (batch, length), of choices (batch, choices, length), or pixels
        (batch, channels, height, width), and `labels`, the targets.
    """
    images = image_shape(model, batch_size)
    if images is not None:
        batch = {"pixel_values": _empty(*images, dtype=model.dtype)}
    else:
        shape = criterion.shape(batch_size, length)
        batch = {name: _empty(*shape) for name in _arguments(model)}
    return {**batch, "labels": criterion.blank(batch_size, length, model.config.num_labels)}


def _arguments(model: PreTrainedModel) -> list[str]:
    """The arguments of a model of texts, each (batch, length)."""
    names = ["input_ids", "attention_mask"]
    if getattr(model.config, "type_vocab_size", 0) > 1:
        names.append("token_type_ids")
    return names


def _empty(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def outputs_of(model: PreTrainedModel, criterion: Criterion, batch: MetaBatch) -> Tensor:
    """What counts of what the model returns, (batch, …)."""
    given = {name: tensor for name, tensor in batch.items() if name != "labels"}
    return criterion.outputs(model(**criterion.inputs(model, given, batch["labels"])))


def loss_of(
    criterion: Criterion, outputs: Tensor, batch: MetaBatch, smoothing: float = 0.0
) -> Tensor:
    """The mean loss of the batch, a scalar."""
    return criterion.losses(outputs, batch["labels"], smoothing).mean()
