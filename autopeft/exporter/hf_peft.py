"""A folder that HF peft loads on its own, for what HF peft can express."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import peft
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from autopeft.exporter.exporter import Exporter, Obstacle, Trained, path_of
from autopeft.method.attach import Attached
from autopeft.method.lora import LoraMethod
from autopeft.method.registry import Placed
from autopeft.method.sites import Layer, features

TASKS = {
    "ForSequenceClassification": ("SEQ_CLS", ("classifier", "score")),
    "ForTokenClassification": ("TOKEN_CLS", ("classifier", "score")),
    "ForCausalLM": ("CAUSAL_LM", ()),
    "LMHeadModel": ("CAUSAL_LM", ()),
    "ForConditionalGeneration": ("SEQ_2_SEQ_LM", ()),
}
"""By the end of the model's class: HF peft's task type and the modules it always saves.

Not its QUESTION_ANS, in which peft 0.21 loses the segments of question and text.
"""

REASONS = {
    "adapter": "HF peft has no bottleneck adapters",
    "prefix": "HF peft's prefix has one length for all layers and shifts the positions of the text",
}
NO_TARGETS = "dummy-target-modules"
"""HF peft's own mark for a LoRA configuration without LoRA."""

_PREFIX = "base_model.model."


@dataclass(frozen=True)
class _LowRank:
    """The change scaling * B A of one module: A (r, inputs), B (outputs, r)."""

    a: Tensor
    b: Tensor
    scaling: float

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    @property
    def alpha(self) -> float:
        return self.scaling * self.rank

    def plus(self, other: _LowRank) -> _LowRank:
        """The sum, whose rank is the sum of ranks and whose scaling is 1."""
        b = torch.cat([self.b * self.scaling, other.b * other.scaling], dim=1)
        return _LowRank(torch.cat([self.a, other.a]), b, 1.0)


@dataclass
class _Translation:
    """What HF peft needs of all sites together.

    Attributes:
        low_rank: the LoRA of every module that has one, by path.
        biases: the trained biases themselves by path of their modules, in float32.
        dropout: the largest of all placements of LoRA.
    """

    low_rank: dict[str, _LowRank] = field(default_factory=dict)
    biases: dict[str, Tensor] = field(default_factory=dict)
    dropout: float = 0.0

    def tensors(self) -> dict[str, Tensor]:
        """Under HF peft's names."""
        named = {f"{path}.lora_A.weight": change.a for path, change in self.low_rank.items()}
        named |= {f"{path}.lora_B.weight": change.b for path, change in self.low_rank.items()}
        for path, bias in self.biases.items():
            named[f"{path}.base_layer.bias" if path in self.low_rank else f"{path}.bias"] = bias
        return named


class HFPeft(Exporter):
    """`adapter_config.json` and `adapter_model.safetensors`, as `PeftModel.from_pretrained` reads.

    LoRA is a `LoraConfig` with a rank and an alpha per module; several placements on one module,
    and those on parts of a fused one, become one LoRA of their ranks' sum. BitFit is the biases
    themselves under `bias: all`, which replace those of the base model at loading. The head is
    `modules_to_save`. A configuration with neither LoRA nor BitFit is a folder with the head alone.

    References:
        Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, equation 3.
    """

    library: ClassVar[str] = "peft"

    def obstacles(self, trained: Trained) -> tuple[Obstacle, ...]:
        return tuple(
            Obstacle(placement, REASONS.get(placement.method, "HF peft has no such method"))
            for placement in trained.config.placements
            if placement.method not in TRANSLATORS
        )

    def write(self, trained: Trained, folder: Path) -> None:
        with trained.attached() as attached:
            translation = _translated(trained)
            heads = _heads(trained)
            tensors = translation.tensors() | _head_tensors(attached, heads)
        named = {f"{_PREFIX}{name}": t.cpu().contiguous() for name, t in tensors.items()}
        config = _lora_config(trained, translation, heads)
        text = json.dumps(config, indent=2, sort_keys=True)
        (folder / "adapter_config.json").write_text(text, encoding="utf-8")
        save_file(named, folder / "adapter_model.safetensors", {"format": "pt"})

    def usage(self, trained: Trained) -> str:
        return (
            f"from peft import PeftModel\n{trained.loads_base()}\n"
            'model = PeftModel.from_pretrained(model, "FOLDER").eval()'
        )


Translator = Callable[[_Translation, Trained, Placed, Layer], None]
"""Adds one site of a method to a translation."""


def _add_low_rank(into: _Translation, trained: Trained, placed: Placed, layer: Layer) -> None:
    assert isinstance(placed.method, LoraMethod)
    linear, weights = layer.linears[placed.site.at], trained.weights(placed)
    b = weights["B"]
    if linear.columns is not None:
        whole = b.new_zeros(features(linear.module)[1], b.shape[1])
        whole[linear.columns] = b
        b = whole
    change, before = _LowRank(weights["A"], b, placed.method.scaling), into.low_rank
    before[linear.path] = before[linear.path].plus(change) if linear.path in before else change
    into.dropout = max(into.dropout, placed.method.options.lora_dropout)


def _add_bias(into: _Translation, trained: Trained, placed: Placed, layer: Layer) -> None:
    at = placed.site.at
    path = path_of(layer, at)
    if path not in into.biases:
        into.biases[path] = layer.module(at).get_parameter("bias").detach().float().clone()
    offset = trained.weights(placed)["bias"].to(into.biases[path].device)
    columns = layer.columns(at)
    into.biases[path][slice(None) if columns is None else columns] += offset


TRANSLATORS: Mapping[str, Translator] = {"bitfit": _add_bias, "lora": _add_low_rank}
"""The methods that HF peft has, too."""


def _translated(trained: Trained) -> _Translation:
    translation = _Translation()
    for placed, layer in trained.placed():
        TRANSLATORS[placed.placement.method](translation, trained, placed, layer)
    return translation


def _heads(trained: Trained) -> list[str]:
    """Every module that HF peft will save whole; it finds them by the end of their names."""
    _, always = _task(trained)
    endings = (*trained.backbone.modules_to_save, *always)
    return sorted(
        name for name, _ in trained.model.named_modules() if name and name.endswith(endings)
    )


def _head_tensors(attached: Attached, heads: Iterable[str]) -> dict[str, Tensor]:
    return {
        f"{path}.{name}": tensor.detach().clone()
        for path in heads
        for name, tensor in attached.model.get_submodule(path).state_dict().items()
    }


def _lora_config(trained: Trained, translation: _Translation, heads: list[str]) -> dict[str, Any]:
    """The content of `adapter_config.json`: the commonest rank and alpha, and the exceptions."""
    low_rank = translation.low_rank
    ranks = {path: change.rank for path, change in low_rank.items()}
    alphas = {path: _whole(change.alpha) for path, change in low_rank.items()}
    task, _ = _task(trained)
    config = peft.LoraConfig(
        r=_commonest(ranks.values()),
        lora_alpha=_commonest(alphas.values()),
        rank_pattern=_exceptions(ranks),
        alpha_pattern=_exceptions(alphas),
        lora_dropout=translation.dropout,
        target_modules=sorted(low_rank) or NO_TARGETS,
        fan_in_fan_out=any(isinstance(trained.model.get_submodule(p), Conv1D) for p in low_rank),
        modules_to_save=heads or None,
        bias="all" if translation.biases else "none",
        task_type=task,
        inference_mode=True,
        base_model_name_or_path=trained.model.name_or_path,
        auto_mapping=None if task else _auto_mapping(trained),
    )
    plain = {key: sorted(v) if isinstance(v, set) else v for key, v in config.to_dict().items()}
    return plain | {"peft_version": peft.__version__}


def _task(trained: Trained) -> tuple[str | None, tuple[str, ...]]:
    name = type(trained.model).__name__
    tasks = (task for end, task in TASKS.items() if name.endswith(end))
    return next(tasks, (None, ()))


def _auto_mapping(trained: Trained) -> dict[str, str]:
    kind = type(trained.model)
    return {"base_model_class": kind.__name__, "parent_library": kind.__module__}


def _commonest(values: Iterable[Any]) -> Any:
    """The most frequent value, the first of equals; 8, HF peft's own default, of none."""
    return (Counter(values).most_common(1) or [(8, 0)])[0][0]


def _exceptions(values: Mapping[str, Any]) -> dict[str, Any]:
    """The modules of another value than the commonest, as patterns of exactly one name."""
    usual = _commonest(values.values())
    return {f"^{re.escape(p)}": v for p, v in sorted(values.items()) if v != usual}


def _whole(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value
