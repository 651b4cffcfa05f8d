"""A folder that HF peft loads on its own, for what HF peft can express."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import peft
from safetensors.torch import save_file
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from autopeft.exporter.exporter import Exporter, Obstacle, Trained, head_tensors, path_of
from autopeft.exporter.low_rank import LowRank, differ, low_rank
from autopeft.method import bridge
from autopeft.method.attach import Attached
from autopeft.method.hook import TrainedSite
from autopeft.method.method import Change
from autopeft.method.sites import Columns, features

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

_APART = "in folders of its own, which are not written"
REASONS = {
    "adapter": "HF peft has no bottleneck adapters",
    "hira": f"HF peft has HiRA {_APART}",
    "loha": f"HF peft has LoHa {_APART}",
    "lokr": f"HF peft has LoKr {_APART}",
    "norm": f"HF peft has norm tuning {_APART}",
    "prefix": "HF peft's prefix has one length for all layers and shifts the positions of the text",
    "vera": "HF peft cuts the random matrices of VeRA out of one for all shapes",
}
FAMILIES = ({"lora", "moslora", "bitfit"}, {"dora", "bitfit"}, {"ia3"}, {"peft"})
"""Methods that HF peft has in one folder."""
NO_TARGETS = "dummy-target-modules"
"""HF peft's own mark for a LoRA configuration without LoRA."""

_PREFIX = "base_model.model."


@dataclass
class _Translation:
    """What HF peft needs of all sites together.

    Attributes:
        low_rank: the LoRA of every module that has one, by path.
        lengths: of the rows of modules with DoRA, by path.
        factors: of (IA)³ by path, and whether they are those of the input.
        layers: the tensors of HF peft's own layers, by path.
        biases: the trained biases themselves by path of their modules, in float32.
        dropout: the largest of all placements of LoRA.
    """

    low_rank: dict[str, LowRank] = field(default_factory=dict)
    lengths: dict[str, Tensor] = field(default_factory=dict)
    factors: dict[str, tuple[Tensor, bool]] = field(default_factory=dict)
    layers: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    biases: dict[str, Tensor] = field(default_factory=dict)
    dropout: float = 0.0

    @property
    def differs(self) -> bool:
        """Whether modules have several ranks or scalings."""
        return differ(self.low_rank.values())

    def uniform(self) -> _Translation:
        """The same with one rank and a scaling of 1 everywhere."""
        most = max((change.rank for change in self.low_rank.values()), default=0)
        padded = {path: change.padded(most) for path, change in self.low_rank.items()}
        return replace(self, low_rank=padded)

    def tensors(self) -> dict[str, Tensor]:
        """Under HF peft's names."""
        named = {f"{path}.lora_A.weight": change.a for path, change in self.low_rank.items()}
        named |= {f"{path}.lora_B.weight": change.b for path, change in self.low_rank.items()}
        named |= {f"{p}.lora_magnitude_vector": lengths for p, lengths in self.lengths.items()}
        for path, (factor, enters) in self.factors.items():
            named[f"{path}.ia3_l"] = factor[None] if enters else factor[:, None]
        for path, tensors in self.layers.items():
            named |= {f"{path}.{name}": tensor for name, tensor in tensors.items()}
        for path, bias in self.biases.items():
            named[f"{path}.base_layer.bias" if path in self.low_rank else f"{path}.bias"] = bias
        return named


@dataclass(frozen=True)
class HFPeft(Exporter):
    """`adapter_config.json` and `adapter_model.safetensors`, as `PeftModel.from_pretrained` reads.

    LoRA is a `LoraConfig` with one rank and one alpha, since vLLM and SGLang take no patterns of
    them and llama.cpp divides the one alpha by the rank of each tensor: where they differ, factors
    are padded with zeros to the largest rank and B is scaled. Several placements on one module,
    and those on parts of a fused one, become one LoRA of their ranks' sum, as does PiSSA with what
    it takes off; the mixer of MoSLoRA becomes part of A. DoRA is one that uses it everywhere, (IA)³
    an `IA3Config`. BitFit is the biases themselves under `bias: all`, which replace those of the
    base model at loading. The head is `modules_to_save`. A configuration with none of these is a
    folder with the head alone.

    Attributes:
        uniform: false keeps the ranks, as patterns; true pads and scales always.

    References:
        Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, equation 3.
    """

    uniform: bool | None = None

    library: ClassVar[str] = "peft"

    def obstacles(self, trained: Trained) -> tuple[Obstacle, ...]:
        placements = trained.config.placements
        missing = [p for p in placements if p.method not in TRANSLATORS]
        if missing:
            default = "HF peft has no such method"
            return tuple(Obstacle(p, REASONS.get(p.method, default)) for p in missing)
        methods = {placement.method for placement in placements}
        if not any(methods <= family for family in FAMILIES):
            reason = f"HF peft has no folder with {' and '.join(sorted(methods))}"
            return tuple(Obstacle(placement, reason) for placement in placements)
        if methods == {"peft"}:
            return _of_bridges(trained)
        twice = {p.placement for p, _ in trained.placed() if p.key.rpartition(".")[2].isdigit()}
        reason = "HF peft has one of it at a module"
        return tuple(Obstacle(p, reason) for p in placements if p in twice and p.method in ONCE)

    def write(self, trained: Trained, folder: Path) -> None:
        with trained.attached() as attached:
            translation = _translated(attached)
            pads = translation.differs if self.uniform is None else self.uniform
            translation = translation.uniform() if pads else translation
            heads = _heads(trained)
            tensors = translation.tensors() | head_tensors(attached.model, heads)
        named = {f"{_PREFIX}{name}": t.cpu().contiguous() for name, t in tensors.items()}
        config = _config(trained, translation, heads)
        text = json.dumps(config, indent=2, sort_keys=True)
        (folder / "adapter_config.json").write_text(text, encoding="utf-8")
        save_file(named, folder / "adapter_model.safetensors", {"format": "pt"})

    def usage(self, trained: Trained) -> str:
        return (
            f"from peft import PeftModel\n{trained.loads_base()}\n"
            'model = PeftModel.from_pretrained(model, "FOLDER").eval()'
        )


Translator = Callable[[_Translation, TrainedSite], None]
"""Adds one site of a method to a translation."""


def _add_low_rank(into: _Translation, site: TrainedSite) -> None:
    change, before = low_rank(site), into.low_rank
    linear = site.layer.linears[site.placed.site.at]
    if linear.columns is not None:
        whole = change.b.new_zeros(features(linear.module)[1], change.rank)
        whole[linear.columns] = change.b
        change = replace(change, b=whole)
    before[linear.path] = before[linear.path].plus(change) if linear.path in before else change
    into.dropout = max(into.dropout, site.placed.method.options.lora_dropout)


def _add_dora(into: _Translation, site: TrainedSite) -> None:
    _add_low_rank(into, site)
    linear = site.layer.linears[site.placed.site.at]
    if linear.path not in into.lengths:
        weight = linear.module.get_parameter("weight").detach().float()
        rows = weight.T if isinstance(linear.module, Conv1D) else weight
        into.lengths[linear.path] = rows.norm(dim=1)
    change = 1 + site.tensors["m_change"].detach()
    into.lengths[linear.path][_rows(site)] *= change.to(into.lengths[linear.path].device)


def _add_factor(into: _Translation, site: TrainedSite) -> None:
    part = site.part
    assert isinstance(part, Change)
    linear, enters = site.layer.linears[site.placed.site.at], part.side == "input"
    change = site.tensors["change"].detach()
    if linear.path not in into.factors:
        into.factors[linear.path] = (
            change.new_ones(features(linear.module)[0 if enters else 1]),
            enters,
        )
    factor, _ = into.factors[linear.path]
    factor[slice(None) if enters else _rows(site)] *= 1 + change


def _add_layer(into: _Translation, site: TrainedSite) -> None:
    path = site.layer.linears[site.placed.site.at].path
    into.layers[path] = {name: tensor.detach() for name, tensor in site.weights.items()}


def _of_bridges(trained: Trained) -> tuple[Obstacle, ...]:
    """What keeps layers of HF peft from a folder of it."""
    first, *others = trained.config.placements
    kind = first["peft_type"], bridge.own_of(first)
    reason = "HF peft has one type with one set of options in a folder"
    found = [Obstacle(p, reason) for p in others if (p["peft_type"], bridge.own_of(p)) != kind]
    taken: set[str] = set()
    for placed, layer in trained.placed():
        path = layer.linears[placed.site.at].path
        if layer.columns(placed.site.at) is not None:
            found.append(Obstacle(placed.placement, "HF peft takes a fused projection whole"))
        elif path in taken:
            found.append(Obstacle(placed.placement, "HF peft has one of it at a module"))
        taken.add(path)
    return tuple(dict.fromkeys(found))


def _add_bias(into: _Translation, site: TrainedSite) -> None:
    at = site.placed.site.at
    path = path_of(site.layer, at)
    if path not in into.biases:
        into.biases[path] = site.module.get_parameter("bias").detach().float().clone()
    offset = site.tensors["bias"].detach().to(into.biases[path].device)
    into.biases[path][_rows(site)] += offset


def _rows(site: TrainedSite) -> Columns:
    """The outputs of the module that are those of the site."""
    columns = site.layer.columns(site.placed.site.at)
    return slice(None) if columns is None else columns


TRANSLATORS: Mapping[str, Translator] = {
    "bitfit": _add_bias,
    "dora": _add_dora,
    "ia3": _add_factor,
    "lora": _add_low_rank,
    "moslora": _add_low_rank,
    "peft": _add_layer,
}
"""The methods that HF peft has, too."""

ONCE = ("dora", "ia3", "peft")
"""Those of which it has one at a module."""


def _translated(attached: Attached) -> _Translation:
    translation = _Translation()
    for site in attached.sites:
        TRANSLATORS[site.placed.placement.method](translation, site)
    return translation


def _heads(trained: Trained) -> list[str]:
    """Every module that HF peft will save whole; it finds them by the end of their names."""
    _, always = _task(trained)
    endings = (*trained.backbone.modules_to_save, *always)
    return sorted(
        name for name, _ in trained.model.named_modules() if name and name.endswith(endings)
    )


def _config(trained: Trained, translation: _Translation, heads: list[str]) -> dict[str, Any]:
    """The content of `adapter_config.json`."""
    task, _ = _task(trained)
    about = {
        "modules_to_save": heads or None,
        "task_type": task,
        "inference_mode": True,
        "base_model_name_or_path": trained.model.name_or_path,
        "auto_mapping": None if task else _auto_mapping(trained),
    }
    if translation.factors:
        config = _ia3_config(translation, about)
    elif translation.layers:
        (first, *_) = trained.config.placements
        paths = sorted(translation.layers)
        config = bridge.configured(first["peft_type"], bridge.own_of(first), paths, **about)
    else:
        config = _lora_config(trained, translation, about)
    plain = {key: sorted(v) if isinstance(v, set) else v for key, v in config.to_dict().items()}
    return plain | {"peft_version": peft.__version__}


def _ia3_config(translation: _Translation, about: Mapping[str, Any]) -> peft.PeftConfig:
    entered = sorted(path for path, (_, enters) in translation.factors.items() if enters)
    targets = sorted(translation.factors)
    return peft.IA3Config(target_modules=targets, feedforward_modules=entered, **about)


def _lora_config(
    trained: Trained, translation: _Translation, about: Mapping[str, Any]
) -> peft.PeftConfig:
    """The commonest rank and alpha, and the exceptions."""
    low_rank = translation.low_rank
    ranks = {path: change.rank for path, change in low_rank.items()}
    alphas = {path: _whole(change.alpha) for path, change in low_rank.items()}
    return peft.LoraConfig(
        r=_commonest(ranks.values()),
        lora_alpha=_commonest(alphas.values()),
        rank_pattern=_exceptions(ranks),
        alpha_pattern=_exceptions(alphas),
        lora_dropout=translation.dropout,
        use_dora=bool(translation.lengths),
        target_modules=sorted(low_rank) or NO_TARGETS,
        fan_in_fan_out=any(isinstance(trained.model.get_submodule(p), Conv1D) for p in low_rank),
        bias="all" if translation.biases else "none",
        **about,
    )


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
