"""Outputs of small models with the methods of AdapterHub's library, for tests to compare with.

It wants the library `adapters` and with that an older transformers, so it runs in an environment of
its own, where nothing of autopeft is needed:

    python -m venv oracle && oracle/bin/pip install adapters torch
    oracle/bin/python -m benchmarks.oracles.adapterhub

Every tensor, of the backbone and of the method, has the values of its name, see `formula`. Beside
what autopeft has in the same form there are configurations that AdapterHub understands in another
way, under `differences`, and gates, under `unipelt_gates`.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import adapters
import torch
import transformers
from torch import Tensor

from benchmarks.oracles import formula

GOLDEN = Path(__file__).parents[2] / "tests/method/golden/adapterhub.json"
NAME = "autopeft"
Described = dict[str, Any] | list[dict[str, Any]]


def bottleneck(kind: str, size: int, **options: Any) -> dict[str, Any]:
    """An adapter of a size, where a factor divides the width, which is 16."""
    return {"type": kind, "reduction_factor": 16 // size, **options}


def lora(*attention: str, **options: Any) -> dict[str, Any]:
    rank = {"r": 3, "alpha": 6, "attn_matrices": list(attention)}
    return {"type": "LoRAConfig", **rank, "selfattn_lora": bool(attention), **options}


def prefix(length: int = 3, **options: Any) -> dict[str, Any]:
    return {"type": "PrefixTuningConfig", "flat": True, "prefix_length": length, **options}


PLAIN = {"original_ln_before": False}
HOULSBY = bottleneck("DoubleSeqBnConfig", 4, non_linearity="relu")
EVERYWHERE = {"intermediate_lora": True, "output_lora": True}
IA3 = {"type": "IA3Config"}
DORA = {"type": "DoRAConfig", "r": 3, "alpha": 3}
NETWORK = prefix(flat=False, bottleneck_size=6)
COMPACTER = {"phm_dim": 4, "reduction_factor": 4}
GATED_LORA = lora("q", "v", alpha=2, use_gating=True)
GATED_ADAPTER = bottleneck("SeqBnConfig", 4, use_gating=True, **PLAIN)
UNIPELT = [prefix(use_gating=True), GATED_ADAPTER, GATED_LORA]
PAPER = [prefix(use_gating=True), {**GATED_ADAPTER, "original_ln_before": True}, GATED_LORA]

SAME: Mapping[str, tuple[str, Described]] = {
    "bert houlsby": ("bert", HOULSBY),
    "bert after ffn": ("bert", bottleneck("SeqBnConfig", 4, non_linearity="gelu", **PLAIN)),
    "bert after attention": (
        "bert",
        bottleneck("DoubleSeqBnConfig", 2, non_linearity="gelu", output_adapter=False),
    ),
    "bert sizes by layer": (
        "bert",
        bottleneck("SeqBnConfig", 4, **PLAIN) | {"reduction_factor": {"0": 2, "default": 8}},
    ),
    "bert parallel": ("bert", bottleneck("ParBnConfig", 8)),
    "bert parallel to both": ("bert", bottleneck("ParBnConfig", 4, mh_adapter=True, scaling=2.0)),
    "bert lora": ("bert", lora("q", "v")),
    "bert lora everywhere": ("bert", lora("q", "k", "v", leave_out=[0], **EVERYWHERE)),
    "bert ia3": ("bert", IA3),
    "bert ia3 everywhere": ("bert", {**IA3, "attn_matrices": ["q", "k", "v"], **EVERYWHERE}),
    "bert prefix": ("bert", prefix()),
    "bert prefix above": ("bert", prefix(leave_out=[0])),
    "bert prefix through a network": ("bert", NETWORK),
    "bert compacter": ("bert", {"type": "CompacterConfig", **COMPACTER}),
    "bert compacter++": ("bert", {"type": "CompacterPlusPlusConfig", **COMPACTER, **PLAIN}),
    "bert compacter of rank 2": (
        "bert",
        {"type": "CompacterConfig", "phm_dim": 2, "phm_rank": 2, "reduction_factor": 4},
    ),
    "bert mam": ("bert", [NETWORK, bottleneck("ParBnConfig", 8)]),
    "bert mix": ("bert", [lora("q", "v", **EVERYWHERE), HOULSBY, prefix()]),
    "bert vera": ("bert", {"type": "VeraConfig", "r": 3, "alpha": 3}),
    "roberta mix": ("roberta", [lora("q", "k", **EVERYWHERE), HOULSBY, prefix()]),
    "gpt2 houlsby": ("gpt2", HOULSBY),
    "gpt2 lora": ("gpt2", lora("q", "v")),
    "gpt2 lora everywhere": ("gpt2", lora("q", "k", "v", **EVERYWHERE)),
    "gpt2 ia3": ("gpt2", IA3),
    "gpt2 prefix": ("gpt2", prefix()),
    "llama houlsby": ("llama", HOULSBY),
    "llama lora": ("llama", lora("q", "v")),
    "llama lora everywhere": ("llama", lora("q", "k", "v", **EVERYWHERE)),
    "llama dora": ("llama", DORA),
    "llama ia3": ("llama", IA3),
    "llama prefix": ("llama", prefix()),
    "t5 houlsby": ("t5", {**HOULSBY, "cross_adapter": True}),
    "t5 lora": ("t5", lora("q", "v", leave_out=[1])),
    "t5 dora": ("t5", {**DORA, "intermediate_lora": True}),
    "t5 ia3": ("t5", IA3),
    "t5 compacter": ("t5", {"type": "CompacterConfig", **COMPACTER, "cross_adapter": True}),
    "bart houlsby": ("bart", {**HOULSBY, "cross_adapter": True}),
    "bart parallel": (
        "bart",
        bottleneck("ParBnConfig", 4, mh_adapter=True, cross_adapter=True),
    ),
    "bart lora": ("bart", lora("q", "v", **EVERYWHERE)),
    "bart prefix": ("bart", prefix()),
    "bart mix": ("bart", [lora("q", "v"), bottleneck("ParBnConfig", 8), prefix(leave_out=[0, 3])]),
}
DIFFERENT: Mapping[str, tuple[str, Described]] = {
    "bert pfeiffer": ("bert", bottleneck("SeqBnConfig", 4)),
    "bert dora": ("bert", DORA),
    "llama dora of another alpha": ("llama", {**DORA, "alpha": 6}),
    "bert ia3": ("bert", IA3),
    "gpt2 parallel": ("gpt2", bottleneck("ParBnConfig", 8)),
    "t5 prefix": ("t5", prefix()),
}
GATED: Mapping[str, tuple[str, Described]] = {
    "bert unipelt": ("bert", UNIPELT),
    "bert unipelt after the norm": ("bert", PAPER),
    "bert lora": ("bert", GATED_LORA),
    "bert after ffn": ("bert", GATED_ADAPTER),
    "bert parallel": ("bert", bottleneck("ParBnConfig", 8, use_gating=True)),
    "bert prefix": ("bert", prefix(use_gating=True)),
    "bert prefix of two gates": ("bert", prefix(use_gating=True, shared_gating=False)),
    "gpt2 lora": ("gpt2", GATED_LORA),
    "llama unipelt": ("llama", UNIPELT),
    "bart unipelt": ("bart", UNIPELT),
}


def built(described: Described) -> adapters.AdapterConfig:
    """The configuration; several are a union."""
    if isinstance(described, list):
        return adapters.ConfigUnion(*map(built, described))
    options = {name: option for name, option in described.items() if name != "type"}
    return getattr(adapters, described["type"])(**options)


def measured(name: str, described: Described) -> dict[str, Any]:
    """What a method does to a model, and its tensors."""
    model = formula.small(name)
    adapters.init(model)
    model.add_adapter(NAME, config=built(described))
    model.train_adapter(NAME)
    named = {key: each for key, each in model.state_dict().items() if f".{NAME}." in key}
    tensors = {key: each for key, each in named.items() if ".pool." not in key}
    for key, tensor in tensors.items():
        tensor.data.copy_(formula.of_method(key, tuple(tensor.shape), str(described)))
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    return {
        "model": name,
        "config": described,
        "trained": trained,
        "tensors": {key: list(tensor.shape) for key, tensor in tensors.items()},
        "output": plain(formula.output(model.eval())),
    }


def plain(tensor: Tensor) -> list[float]:
    """All elements as they are written, in order of the rows."""
    return [float(f"{element:.7g}") for element in tensor.flatten().tolist()]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the golden values of AdapterHub.")
    parser.add_argument("--output", type=Path, default=GOLDEN)
    output = parser.parse_args().output
    logging.disable(logging.WARNING)
    groups = {"same": SAME, "differences": DIFFERENT, "unipelt_gates": GATED}
    golden = {
        "made_with": {each.__name__: each.__version__ for each in (adapters, transformers, torch)},
        "backbones": {name: plain(formula.output(formula.small(name))) for name in formula.MODELS},
        **{
            group: {name: measured(*case) for name, case in cases.items()}
            for group, cases in groups.items()
        },
    }
    text = ",\n".join(f"{json.dumps(key)}: {lines(each)}" for key, each in golden.items())
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(f"{{\n{text}\n}}\n", encoding="utf-8")


def lines(group: Mapping[str, Any]) -> str:
    """A group with each of its items in one line."""
    return "{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in group.items()) + "\n}"


if __name__ == "__main__":
    main()
