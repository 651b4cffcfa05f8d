"""A folder that HF peft loads on its own, for what HF peft can express."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file

from autopeft.core.config import PeftConfig
from autopeft.exporter.exporter import Exporter, Obstacle, Trained, head_tensors
from autopeft.exporter.low_rank_types import Dora, Hira, Loha, Lora
from autopeft.exporter.prompts import Prompts
from autopeft.exporter.site_wise import Bridged, Ia3, Lokr, Norms
from autopeft.exporter.translation import IN_MODEL, Translation
from autopeft.exporter.vera import Vera

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

TRANSLATIONS: tuple[type[Translation], ...] = (
    Lora,
    Dora,
    Ia3,
    Bridged,
    Vera,
    Loha,
    Lokr,
    Hira,
    Norms,
    Prompts,
)
"""What HF peft has, each in folders of its own."""

REASONS = {
    "adapter": "HF peft has no bottleneck adapters",
    "prefix": "HF peft's prefix has one length for all layers and shifts the positions of the text",
}


@dataclass(frozen=True)
class HFPeft(Exporter):
    """`adapter_config.json` and `adapter_model.safetensors`, as `PeftModel.from_pretrained` reads.

    LoRA is a `LoraConfig` with one rank and one alpha, since vLLM and SGLang take no patterns of
    them and llama.cpp divides the one alpha by the rank of each tensor: where they differ, factors
    are padded with zeros to the largest rank and B is scaled. Several placements on one module,
    and those on parts of a fused one, become one LoRA of their ranks' sum, as does PiSSA with what
    it takes off; the mixer of MoSLoRA becomes part of A. DoRA is one that uses it everywhere.
    BitFit is the biases themselves under `bias: all`, which replace those of the base model at
    loading. Every other method is a type of HF peft in a folder of its own. The head is
    `modules_to_save`; a configuration of nothing else is a folder with the head alone.

    Attributes:
        uniform: of LoRA; false keeps the ranks, as patterns; true pads and scales always.

    References:
        Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, equation 3.
    """

    uniform: bool | None = None

    library: ClassVar[str] = "peft"
    holds_gates: ClassVar[bool] = False

    def obstacles(self, trained: Trained) -> tuple[Obstacle, ...]:
        placements = trained.config.placements
        known = frozenset().union(*(each.methods for each in TRANSLATIONS))
        missing = [p for p in placements if p.method not in known]
        if missing:
            default = "HF peft has no such method"
            return tuple(Obstacle(p, REASONS.get(p.method, default)) for p in missing)
        translation = _translation(trained.config)
        if translation is None:
            methods = {placement.method for placement in placements}
            reason = f"HF peft has no folder with {' and '.join(sorted(methods))}"
            return tuple(Obstacle(placement, reason) for placement in placements)
        return translation.obstacles(trained)

    @torch.no_grad()
    def write(self, trained: Trained, folder: Path) -> None:
        kind = _translation(trained.config)
        assert kind is not None
        with trained.attached() as attached:
            translation, heads = kind(attached.sites, self.uniform), _heads(trained)
            saved = head_tensors(attached.model, heads).items()
            named = {f"{IN_MODEL}{name}": tensor for name, tensor in saved}
            tensors = {**translation.tensors(), **named}
        config = translation.config(_about(trained, heads)).to_dict()
        plain = {key: sorted(v) if isinstance(v, set) else v for key, v in config.items()}
        text = json.dumps(plain | {"peft_version": version("peft")}, indent=2, sort_keys=True)
        (folder / "adapter_config.json").write_text(text, encoding="utf-8")
        laid_out = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        save_file(laid_out, folder / "adapter_model.safetensors", {"format": "pt"})

    def loads(self, trained: Trained) -> str:
        loading = 'model = PeftModel.from_pretrained(model, "FOLDER").eval()'
        return f"from peft import PeftModel\n{trained.loads_base()}\n{loading}"


def _translation(config: PeftConfig) -> type[Translation] | None:
    """The first type that has all methods of a configuration in one folder."""
    methods = {placement.method for placement in config.placements}
    return next((each for each in TRANSLATIONS if methods <= each.methods), None)


def _heads(trained: Trained) -> list[str]:
    """Every module that HF peft will save whole; it finds them by the end of their names."""
    _, always = _task(trained)
    endings = (*trained.backbone.modules_to_save, *always)
    return sorted(
        name for name, _ in trained.model.named_modules() if name and name.endswith(endings)
    )


def _about(trained: Trained, heads: list[str]) -> Mapping[str, Any]:
    """What the configurations of all types have."""
    task, _ = _task(trained)
    return {
        "modules_to_save": heads or None,
        "task_type": task,
        "inference_mode": True,
        "base_model_name_or_path": trained.model.name_or_path,
        "auto_mapping": None if task else _auto_mapping(trained),
    }


def _task(trained: Trained) -> tuple[str | None, tuple[str, ...]]:
    name = type(trained.model).__name__
    tasks = (task for end, task in TASKS.items() if name.endswith(end))
    return next(tasks, (None, ()))


def _auto_mapping(trained: Trained) -> dict[str, str]:
    kind = type(trained.model)
    return {"base_model_class": kind.__name__, "parent_library": kind.__module__}
