"""A folder that AdapterHub's library loads on its own, for what it can express."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from autopeft.core.config import Placement
from autopeft.exporter.adapterhub_names import NAME, NAMES, Names
from autopeft.exporter.adapterhub_parts import ADAPTERS, LORA_SITES, LOW_RANK, leaf, parts
from autopeft.exporter.exporter import Exporter, Obstacle, Trained, head_tensors
from autopeft.method.registry import Placed

VERSION = "adapters.1.3.0"
"""The release whose form is written."""
REASONS = {
    "bitfit": "AdapterHub trains no biases",
    "dora": "AdapterHub's DoRA multiplies biases, too",
    "ia3": "AdapterHub's (IA)³ multiplies before the activation",
    "vera": "AdapterHub's VeRA has one pair of random matrices for all shapes",
}


class AdapterHub(Exporter):
    """`adapter_config.json` and `pytorch_adapter.bin`, as `model.load_adapter` reads them.

    Adapters are a configuration each, and several are a union. All LoRA is one configuration, since
    AdapterHub takes no second: layers without any are left out, linears without any have zeros, and
    where ranks differ, they are padded to the largest. A trained head stands beside, as one of the
    model's own class. Prefixes want eager attention: before a fused causal one AdapterHub masks the
    wrong positions.

    References:
        Poth et al., "Adapters: A Unified Library for Parameter-Efficient and Modular Transfer
        Learning", 2023, section 3.
    """

    library: ClassVar[str] = "adapters"
    holds_gates: ClassVar[bool] = False

    def obstacles(self, trained: Trained) -> tuple[Obstacle, ...]:
        config = trained.model.config
        if config.model_type not in NAMES:
            return (Obstacle(None, f"AdapterHub's names in {config.model_type} are not known"),)
        placed = [each for each, _ in trained.placed()]
        names = NAMES[config.model_type]
        alone = (Obstacle(p.placement, reason) for p in placed for reason in _alone(p, names))
        return tuple(dict.fromkeys((*alone, *_twice(placed), *_unlike(placed, config))))

    def write(self, trained: Trained, folder: Path) -> None:
        with trained.attached() as attached, torch.no_grad():
            every = list(parts(attached))
            head = head_tensors(attached.model, trained.backbone.modules_to_save)
        configs = [part.config for part in every]
        union = {"architecture": "union", "configs": configs}
        about, config = _about(trained), configs[0] if len(configs) == 1 else union
        _describe(folder / "adapter_config.json", {**about, "name": NAME, "config": config})
        tensors = {name: tensor for part in every for name, tensor in part.tensors.items()}
        _save(folder / "pytorch_adapter.bin", tensors)
        if head:
            labels = trained.model.config
            about |= {"num_labels": labels.num_labels, "label2id": labels.label2id}
            _describe(folder / "head_config.json", {**about, "name": None, "config": None})
            _save(folder / "pytorch_model_head.bin", head)

    def loads(self, trained: Trained) -> str:
        methods = {placement.method for placement in trained.config.placements}
        eager = 'model.set_attn_implementation("eager")\n' if "prefix" in methods else ""
        return (
            f"import adapters\n{trained.loads_base()}\n{eager}adapters.init(model)\n"
            'model.load_adapter("FOLDER", set_active=True)\nmodel = model.eval()'
        )


def _about(trained: Trained) -> dict[str, Any]:
    model = trained.model
    return {
        "model_type": model.config.model_type,
        "hidden_size": model.config.hidden_size,
        "model_name": model.name_or_path,
        "model_class": type(model).__name__,
        "version": VERSION,
    }


def _describe(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, sort_keys=True), encoding="utf-8")


def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    torch.save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, path)


def _twice(placed: Sequence[Placed]) -> Iterator[Obstacle]:
    """Adapters where there is one already, and another Compacter, since all share their factors."""
    taken: set[tuple[int, str]] = set()
    products: set[Placement] = set()
    for each in placed:
        placement, at = each.placement, (each.layer, each.site.name)
        if placement.method not in ADAPTERS:
            continue
        if at in taken:
            yield Obstacle(placement, "AdapterHub has one adapter after a sublayer")
        taken.add(at)
        if placement.method == "compacter":
            products.add(placement)
        if placement in products and len(products) > 1:
            yield Obstacle(placement, "AdapterHub has one Compacter in a folder")


def _unlike(placed: Sequence[Placed], config: PreTrainedConfig) -> Iterator[Obstacle]:
    """Prefixes of several lengths, or of keys whose width AdapterHub does not expect."""
    own = [each for each in placed if each.placement.method == "prefix"]
    lengths: Counter[tuple[int, str]] = Counter()
    for each in own:
        lengths[each.layer, each.site.name] += each.method.options.length
    heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
    width = heads * (config.hidden_size // config.num_attention_heads)
    for each in own:
        if len({*lengths.values()}) > 1:
            yield Obstacle(each.placement, "AdapterHub has one length of prefixes for all layers")
        if each.site.weights[0].shape[1] != width:
            yield Obstacle(each.placement, f"AdapterHub wants keys of width {width}")


def _alone(each: Placed, names: Names) -> Iterator[str]:
    """Why AdapterHub does not have a site, whatever else there is."""
    method, options = each.placement.method, each.method.options
    if method in ADAPTERS and options.form == "parallel" and not names.norms_after:
        yield "AdapterHub's parallel adapters read what no norm has seen"
    if method == "compacter" and any(n % options.phm_dim for n in (options.size, *each.site.shape)):
        yield "AdapterHub's Compacter has sizes and widths that phm_dim divides"
    if method in LOW_RANK and leaf(each.site.at) not in LORA_SITES:
        yield f"AdapterHub has LoRA at {', '.join(LORA_SITES)} alone"
    if method == "prefix" and not names.positions:
        yield "AdapterHub's prefix moves the relative positions of the text"
    if method not in (*ADAPTERS, *LOW_RANK, "prefix"):
        yield REASONS.get(method, "AdapterHub has no such method")
