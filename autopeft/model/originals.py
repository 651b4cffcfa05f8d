"""What quantization takes of the weights of a backbone."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.bitsandbytes import dequantize_bnb_weight
from transformers.pytorch_utils import Conv1D

from autopeft.method.sites import LOST
from autopeft.model.loaded import Loaded


class Originals:
    """A backbone as it was before its quantization, loaded when it is first asked for.

    Args:
        load: gives it, on a CPU.
    """

    def __init__(self, load: Callable[[], Loaded]) -> None:
        self._load = load

    @cached_property
    def model(self) -> PreTrainedModel:
        """The backbone."""
        model, _ = self._load()
        return model

    def tell(self, model: PreTrainedModel) -> None:
        """Lets each quantized linear of `model` say what its weight has lost."""
        for path, module in model.named_modules():
            if isinstance(module, nn.Linear) and not module.weight.is_floating_point():
                setattr(module, LOST, _Lost(self, path, module))


class _Lost:
    """What the weight of one linear has lost, (outputs, inputs), in float32 on its device."""

    def __init__(self, originals: Originals, path: str, linear: nn.Linear) -> None:
        self._originals, self._path, self._linear = originals, path, linear

    def __call__(self) -> Tensor:
        linear = self._linear
        left = dequantize_bnb_weight(linear.weight, getattr(linear, "state", None)).float()
        whole = self._originals.model.get_submodule(self._path)
        weight = whole.get_parameter("weight").detach().to(left.device, left.dtype)
        return (weight.T if isinstance(whole, Conv1D) else weight) - left
