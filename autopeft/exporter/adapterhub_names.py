"""Where AdapterHub's library keeps the tensors of its methods, by backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from transformers import PreTrainedModel

from autopeft.method.sites import Layer

NAME = "autopeft"
"""That of the adapter in a folder."""

_IN_LAYER = {
    "self": "attention_adapters",
    "cross": "cross_attention_adapters",
    "ffn": "output_adapters",
}
_IN_OUTPUTS = {"self": "attention.output", "ffn": "output"}


@dataclass(frozen=True)
class Names:
    """What AdapterHub does in one architecture.

    Attributes:
        sublayers: what a layer calls the place of adapters after each sublayer; of T5, whose
            sublayers are numbered, nothing.
        norms_after: norms stand after sublayers, so that the residual is what a sublayer reads.
        positions: prefixes leave positions as they are.
        feed_forward: the roles that LoRA calls `intermediate` and `output`.
        prefix: what names of prefixes end in.
    """

    sublayers: Mapping[str, str]
    norms_after: bool = False
    positions: bool = True
    feed_forward: tuple[str, str] = ("up", "down")
    prefix: str = "_prefix"

    def bottleneck(self, layer: Layer, sublayer: str) -> str:
        """The path of what holds the adapters after `self`, `cross` or `ffn`."""
        if self.sublayers:
            return f"{layer.path}.{self.sublayers[sublayer]}.adapters"
        last = 2 if layer.stack == "decoder" else 1
        number = {"self": 0, "cross": 1, "ffn": last}[sublayer]
        return f"{layer.path}.layer.{number}.adapters"

    def prefixes(self, layer: Layer, attention: str) -> str:
        """The name of the prefixes of `self` or `cross`, which all layers of a stack share."""
        encodes = (layer.stack, attention) == ("encoder", "self")
        return f"{'encoder' if encodes else attention}{self.prefix}"


_BERT = Names(_IN_OUTPUTS, norms_after=True)
_LLAMA = Names(_IN_LAYER, feed_forward=("down", "up"))
NAMES: Mapping[str, Names] = {
    "bart": Names(_IN_LAYER, norms_after=True),
    "bert": _BERT,
    "distilbert": Names(_IN_LAYER, norms_after=True, prefix=""),
    "electra": _BERT,
    "gpt2": Names(_IN_LAYER),
    "llama": _LLAMA,
    "mbart": Names(_IN_LAYER),
    "mistral": _LLAMA,
    "roberta": _BERT,
    "t5": Names({}, positions=False),
    "xlm-roberta": _BERT,
}
"""By `model_type`; of the architectures that it supports those that are checked."""


def base_of(model: PreTrainedModel) -> str:
    """What names of the model without its head begin with."""
    prefix = model.base_model_prefix
    return f"{prefix}." if hasattr(model, prefix) else ""
