"""Says which methods and tasks work on which architectures, by running small models of each.

`python -m benchmarks.architectures` builds a model of two layers with random weights for every
architecture, with the head of every task that transformers has for it, attaches every method to all
layers, runs forward and backward, asks that a gradient reaches every trained tensor, detaches, and
asks that every bit is as it was. It writes `docs/architectures.md`.
"""

from __future__ import annotations

import argparse
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from torch import Tensor

from autopeft.core.config import PeftConfig
from autopeft.core.errors import AutoPeftError
from autopeft.method.attach import attach
from autopeft.method.count import trained_elements
from autopeft.method.demands import check_methods
from autopeft.method.sites import layers_of, shape_of
from autopeft.model.backbone import head_of
from autopeft.model.head import HEADS
from autopeft.model.hub import quiet
from autopeft.model.proof import check_sites
from autopeft.space import SearchSpace

TABLE = Path(__file__).parent.parent / "docs" / "architectures.md"
TYPES: Mapping[str, tuple[str, ...]] = {
    "encoders": (
        *("bert", "roberta", "xlm-roberta", "deberta", "deberta-v2", "distilbert", "electra"),
        *("albert", "mpnet", "modernbert"),
    ),
    "encoders with decoders": ("t5", "mt5", "bart"),
    "decoders": (
        *("gpt2", "opt", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2"),
        *("gemma3_text", "phi3", "smollm3", "olmo", "olmo2", "falcon", "bloom"),
    ),
    "mixtures of experts": ("mixtral", "qwen2_moe", "qwen3_moe"),
    "with state-space layers": ("jamba", "bamba", "falcon_h1", "qwen3_next"),
    "vision": ("vit", "dinov2", "beit", "swin", "clip"),
}
_BOTTLENECK = {"size": 2, "at": "ffn", "activation": "gelu"}
METHODS: Mapping[str, Mapping[str, Any]] = {
    **{name: {"r": 2} for name in ("lora", "dora", "moslora", "hira", "loha", "lokr", "vera")},
    **dict.fromkeys(("adapter", "adamix", "propetl", "sparse-adapter"), _BOTTLENECK),
    "compacter": {**_BOTTLENECK, "phm_dim": 2},
    **{name: {"length": 2} for name in ("prefix", "prompt")},
    "ladder": {"size": 2},
    "tiny-attention": {"at": "both", "num_heads": 2},
    **{name: {} for name in ("ia3", "ssf", "norm", "bitfit", "full")},
    "sparse": {"r": 2},
    "peft": {"peft_type": "road", "group_size": 2},
}
AT_LINEARS = ("lora", "dora", "moslora", "hira", "loha", "lokr", "vera", "full", "sparse", "peft")
"""Those that are tried at all linears."""

AUTOS: Mapping[str, str] = {
    **{name: head.auto for name, head in HEADS.items()},
    "multiple-choice": "AutoModelForMultipleChoice",
    "question-answering": "AutoModelForQuestionAnswering",
}
SIZES: Mapping[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("embedding_size", "embed_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layers", "n_layer", "num_layers"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_heads", "n_head", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "d_ff", "ffn_dim", "n_inner"), 48),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "moe_intermediate_size"), 48),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("head_dim", "d_kv"), 8),
    **dict.fromkeys(("vocab_size",), 99),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 64),
    **dict.fromkeys(("num_experts", "num_local_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok",), 2),
    **dict.fromkeys(("image_size",), 16),
    **dict.fromkeys(("patch_size",), 4),
    **dict.fromkeys(("bos_token_id",), 0),
}
"""What makes a model small, by whatever name a configuration has for it."""

END = 4
"""The token that ends a text."""


@dataclass
class Found:
    """What is known of an architecture.

    Attributes:
        sites: names of its linears, and in how many of its layers they are.
        methods: by name, empty where it works, else why not.
        tasks: by name, likewise.
    """

    sites: str = ""
    methods: dict[str, str] = field(default_factory=dict)
    tasks: dict[str, str] = field(default_factory=dict)


def small(model_type: str) -> tf.PreTrainedConfig:
    """A configuration of that type for a model of two layers."""
    config = tf.AutoConfig.for_model(model_type)
    kind = type(config)
    known = {k: v for k, v in SIZES.items() if getattr(config, k, None) is not None}
    derived = {*kind.attribute_map, *(k for k in known if isinstance(vars(kind).get(k), property))}
    given = {k: v for k, v in known.items() if k not in derived}
    made = kind(**{**given, **SPECIAL.get(model_type, {})})
    made.pad_token_id, made.eos_token_id, made.use_cache = 0, END, False
    if made.is_encoder_decoder:
        made.decoder_start_token_id = 0
    return made


SPECIAL: Mapping[str, Mapping[str, Any]] = {
    "swin": {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 2},
    "clip": {
        "vision_config": {
            **{k: SIZES[k] for k in ("hidden_size", "intermediate_size", "image_size")},
            **{k: SIZES[k] for k in ("patch_size", "num_hidden_layers", "num_attention_heads")},
        }
    },
    "falcon": {"new_decoder_architecture": True, "bias": True},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "bamba": {"attn_layer_indices": [1], "mamba_n_heads": 4, "mamba_d_head": 16},
    "qwen3_next": {"num_hidden_layers": 4},
    "modernbert": {"global_attn_every_n_layers": 2},
}
"""What such a model needs besides."""


def built(config: tf.PreTrainedConfig, auto: str) -> tf.PreTrainedModel:
    """The same weights every time, louder than usual, where attention is almost uniform."""
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(0)
        model = getattr(tf, auto).from_config(config).eval()
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.data.mul_(3)
            else:
                parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


def inputs(model: tf.PreTrainedModel, task: str) -> dict[str, Tensor]:
    """Two examples."""
    generator = torch.Generator().manual_seed(1)
    if HEADS.get(task) is not None and HEADS[task].sees:
        return {"pixel_values": torch.randn(2, 3, 16, 16, generator=generator)}
    ids = torch.randint(5, 99, (2, 8), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    ids[:, 5] = END
    batch = {"input_ids": ids, "attention_mask": mask}
    if task == "multiple-choice":
        batch = {name: tensor[:, None].repeat(1, 3, 1) for name, tensor in batch.items()}
    if task == "seq2seq-lm":
        batch["decoder_input_ids"] = ids[:, :4]
    return batch


def checked(model: tf.PreTrainedModel, task: str, config: PeftConfig) -> None:
    """Raises for a configuration that does not do what it promises."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plain = outputs(model, task)
    on = attach(model, config, modules_to_save=head_of(model))
    try:
        for tensor in on.trainable().values():
            tensor.data.add_(0.05 * torch.randn_like(tensor))
        given = outputs(on.model, task)
        given.square().mean().backward()
        stuck = [
            name
            for name, tensor in on.trainable().items()
            if not name.startswith("head.") and (tensor.grad is None or not tensor.grad.abs().max())
        ]
        if stuck:
            raise RuntimeError(f"no gradient reaches {len(stuck)} tensors, first {stuck[0]}")
        if torch.equal(given, plain):
            raise RuntimeError("the outputs do not change")
    finally:
        on.detach()
    after = model.state_dict()
    if before.keys() != after.keys() or not all(torch.equal(before[n], after[n]) for n in before):
        raise RuntimeError("detaching does not restore every bit")
    if not torch.equal(outputs(model, task), plain):
        raise RuntimeError("detaching does not restore the outputs")


def outputs(model: tf.PreTrainedModel, task: str) -> Tensor:
    torch.manual_seed(0)
    returned = model(**inputs(model, task))
    return returned.start_logits if task == "question-answering" else returned.logits


def reason(act: Callable[[], object]) -> str:
    """Why it fails; empty if it does not."""
    try:
        act()
    except Exception as error:  # a model can raise anything
        return described(error)
    return ""


def described(error: Exception) -> str:
    """One short line."""
    line = " ".join(str(error).split())
    if isinstance(error, AutoPeftError):
        return re.sub(r"^\w+ (?=does not run)", "", line.removeprefix("place: "))
    return f"{type(error).__name__}: {line[:100]}"


def sites_of(model: tf.PreTrainedModel) -> str:
    """Such as `q k v o up down`, with the number of layers where not all have one."""
    layers = layers_of(model)
    counts = Counter(name for layer in layers for name in layer.linears)
    return " ".join(n if k == len(layers) else f"{n}({k}/{len(layers)})" for n, k in counts.items())


def tried(model: tf.PreTrainedModel, task: str, entry: Mapping[str, Any]) -> None:
    """Checks one method in all layers; what is beside linears at all of them."""
    if entry["method"] in AT_LINEARS:
        names = {name.rpartition(".")[2] for layer in layers_of(model) for name in layer.linears}
        entry = {**entry, "targets": sorted(names)}
    check_methods(model, [entry["method"]])
    space = SearchSpace.load({"name": "all", "place": [entry]})
    checked(model, task, space.on(shape_of(model), trained_elements).resolve({}))


def explored(model_type: str) -> Found:
    """What works on an architecture: every method on its first task, LoRA on the others."""
    found = Found()
    config = small(model_type)
    for task, auto in AUTOS.items():
        mapping = getattr(tf, auto)._model_mapping
        if type(config) not in mapping or (config.is_encoder_decoder and task == "causal-lm"):
            continue
        try:
            model = built(config, auto)
            found.sites = found.sites or sites_of(model)
            check_sites(model)
        except Exception as error:  # a model can raise anything
            found.tasks[task] = described(error)
            continue
        for method, options in METHODS.items():
            works = found.methods.get(method) == ""
            if works and method != "lora":
                continue
            entry = {"method": method, **options}
            why = reason(partial(tried, model, task, entry))
            found.methods[method] = "" if works else why
            if method == "lora":
                found.tasks[task] = why
    return found


def table(found: Mapping[str, Found]) -> str:
    """The document; reasons stand below the tables, each once."""
    notes: dict[str, int] = {}

    def cell(why: str) -> str:
        return f"[{notes.setdefault(why, len(notes) + 1)}]"

    lines = [
        "# Architectures",
        "",
        f"Written by `python -m benchmarks.architectures` with torch {version('torch')} and",
        f"transformers {version('transformers')}: every method in all layers of a small model, and",
        "LoRA at all linears under the head of every task. A method works where gradients reach",
        "all that it trains, the outputs change, every bit is back after detaching, and the sites",
        f"do what they are called. The {len(METHODS)} methods are {', '.join(METHODS)}.",
    ]
    for family, types in TYPES.items():
        shown = [name for name in types if name in found]
        lines += ["", f"## {family.capitalize()}", ""]
        lines += ["| model type | sites | methods | tasks |", "|---|---|---|---|"]
        for name in shown:
            each = found[name]
            reasons = {m: each.methods.get(m, "no task of transformers") for m in METHODS}
            without = [f"{m} {cell(why)}" for m, why in reasons.items() if why]
            methods = f"all but {', '.join(without)}" if without else "all"
            tasks = [t if not why else f"{t} {cell(why)}" for t, why in each.tasks.items()]
            lines += [f"| `{name}` | {each.sites} | {methods} | {', '.join(tasks)} |"]
    lines += ["", *(f"[{n}] {why}  " for why, n in notes.items())]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes docs/architectures.md.")
    parser.add_argument("--types", nargs="+", help="model types of transformers; prints them only")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    found: dict[str, Found] = {}
    for model_type in chosen.types or [name for types in TYPES.values() for name in types]:
        try:
            found[model_type] = explored(model_type)
        except Exception as error:  # as of a type that this transformers does not know
            found[model_type] = Found(tasks={"none": described(error)})
        print(model_type, found[model_type], flush=True)
    if not chosen.types:
        TABLE.parent.mkdir(exist_ok=True)
        TABLE.write_text(table(found), encoding="utf-8")


if __name__ == "__main__":
    main()
