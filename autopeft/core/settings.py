"""The settings `train` and `backbone` of a configuration, named as in the Hugging Face stack."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from autopeft.core.validation import Section

LARGEST = 2**20
"""Examples or micro-batches of one step."""


class TrainSettings(Section):
    """How a configuration is trained.

    The gradients of `gradient_accumulation_steps` micro-batches of `batch_size` examples make one
    step of the optimizer.
    """

    learning_rate: float = Field(default=1e-3, gt=0)
    batch_size: int = Field(default=16, ge=1, le=LARGEST)
    gradient_accumulation_steps: int = Field(default=1, ge=1, le=LARGEST)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup_ratio: float = Field(default=0.06, ge=0, lt=1)
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = "linear"
    max_grad_norm: float = Field(default=1.0, gt=0)
    label_smoothing_factor: float = Field(default=0.0, ge=0, lt=1)


class BackboneSettings(Section):
    """In which form the frozen backbone is held.

    `dtype: auto` is the fastest that the device multiplies: bfloat16 where that
    is faster, else float32. `gradient_checkpointing` computes the inside of each layer
    again in the backward pass; `activation_offloading` keeps what the backward pass needs in the
    memory of the host. Both change the cost of a training, not its result.
    """

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    quantization: Literal["none", "nf4", "int8"] = "none"
    gradient_checkpointing: bool = False
    activation_offloading: bool = False

    @field_validator("dtype", mode="before")
    @classmethod
    def _trainable(cls, dtype: object) -> object:
        if dtype == "float16":
            raise ValueError("small gradients vanish in float16; bfloat16 takes as little memory")
        return dtype
