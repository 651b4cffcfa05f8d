"""The methods, each as it stands in a file, and as HF peft has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HEAD_RATE = 2e-3
"""Of the head, and of placements that say nothing else."""

_QV = ["query", "value"]


@dataclass(frozen=True)
class Entry:
    """One method.

    Attributes:
        space: name of a configuration of the catalog, or a placement.
        peft: the class of HF peft's configuration and its options, where it has the method.
    """

    space: str | Mapping[str, Any]
    peft: tuple[str, Mapping[str, Any]] | None = None

    @property
    def document(self) -> str | dict[str, Any]:
        """What `SearchSpace.load` takes."""
        if isinstance(self.space, str):
            return self.space
        train = {"learning_rate": HEAD_RATE}
        return {"name": "method", "place": [dict(self.space)], "train": train}


def _lora(rate: float, **options: Any) -> dict[str, Any]:
    return {"method": "lora", "r": 8, "lora_alpha": 16, "learning_rate": rate, **options}


def _their_lora(**options: Any) -> tuple[str, Mapping[str, Any]]:
    return "LoraConfig", {"r": 8, "lora_alpha": 16, "target_modules": _QV, **options}


def _bridge(kind: str, rate: float, **options: Any) -> Entry:
    return Entry({"method": "peft", "peft_type": kind, "learning_rate": rate, **options})


ENTRIES: Mapping[str, Entry] = {
    "lora": Entry("lora", _their_lora()),
    "rslora": Entry(_lora(7e-4, use_rslora=True), _their_lora(use_rslora=True)),
    "pissa": Entry(_lora(1e-3, init_lora_weights="pissa"), _their_lora(init_lora_weights="pissa")),
    "eva": Entry(_lora(1e-3, init_lora_weights="eva")),
    "lora-fa": Entry(_lora(4e-3, freeze_a=True)),
    "lora-plus": Entry(_lora(5e-4, loraplus_lr_ratio=8)),
    "dylora": Entry(_lora(2e-3, use_dylora=True)),
    "dora": Entry("dora", _their_lora(use_dora=True)),
    "moslora": Entry({"method": "moslora", "r": 8, "learning_rate": 2e-3}),
    "hira": Entry(
        {"method": "hira", "r": 32, "learning_rate": 1e-2},
        ("HiraConfig", {"r": 32, "target_modules": _QV}),
    ),
    "loha": Entry(
        {"method": "loha", "r": 8, "learning_rate": 5e-3},
        ("LoHaConfig", {"r": 8, "alpha": 8, "target_modules": _QV}),
    ),
    "lokr": Entry(
        {"method": "lokr", "r": 8, "learning_rate": 5e-3},
        ("LoKrConfig", {"r": 8, "alpha": 8, "target_modules": _QV}),
    ),
    "vera": Entry("vera", ("VeraConfig", {"r": 256, "target_modules": _QV})),
    "ia3": Entry(
        "ia3",
        (
            "IA3Config",
            {
                "target_modules": r".*(key|value|layer\.\d+\.output\.dense)",
                "feedforward_modules": r".*layer\.\d+\.output\.dense",
            },
        ),
    ),
    "norm": Entry("norm", ("LNTuningConfig", {"target_modules": ["LayerNorm"]})),
    "prefix": Entry("prefix", ("PrefixTuningConfig", {"num_virtual_tokens": 20})),
    "prefix-network": Entry(
        {"method": "prefix", "length": 20, "prefix_projection": True, "learning_rate": 3e-4},
        ("PrefixTuningConfig", {"num_virtual_tokens": 20, "prefix_projection": True}),
    ),
    "prompt": Entry("prompt", ("PromptTuningConfig", {"num_virtual_tokens": 20})),
    "prompt-deep": Entry({"method": "prompt", "length": 20, "deep": True, "learning_rate": 5e-2}),
    "shira": Entry(
        {"method": "sparse", "r": 8, "select": "random", "learning_rate": 1e-3},
        ("ShiraConfig", {"r": 8, "target_modules": _QV}),
    ),
    "fishmask": Entry({"method": "sparse", "r": 8, "select": "fisher", "learning_rate": 1e-3}),
    "full-qv": Entry({"method": "full", "learning_rate": 3e-4}),
    **{
        name: Entry(name)
        for name in (
            *("head-only", "houlsby", "pfeiffer", "parallel", "compacter", "adamix"),
            *("ssf", "hadamard", "bitfit", "pafi", "mam", "unipelt", "lst"),
            *("apt", "tiny-attention", "propetl", "sparse-adapter"),
        )
    },
    "peft-miss": _bridge("miss", 1e-3, r=8),
    "peft-oft": _bridge("oft", 2e-3, oft_block_size=32),
    "peft-road": _bridge("road", 5e-3),
}
