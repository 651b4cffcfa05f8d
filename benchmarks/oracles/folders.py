"""Whether AdapterHub's library loads the folders that are written for it.

What writes and what reads want different versions of transformers, so each runs where it can:

    python -m benchmarks.oracles.folders write FOLDER
    oracle/bin/python -m benchmarks.oracles.folders read FOLDER

The second environment is that of `adapterhub`. It runs the code of each card, which has the model
answer a batch, prints how far the outputs of each model are off with each mix, relative to the
largest, and fails above 1e-5.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.oracles import formula

EXPECTED = "expected.json"
TOLERANCE = 1e-5
FORMS = {
    "bert": "ForSequenceClassification",
    "roberta": "ForTokenClassification",
    "gpt2": "LMHeadModel",
    "llama": "ForSequenceClassification",
    "t5": "ForConditionalGeneration",
    "bart": "ForConditionalGeneration",
    "xlm-roberta": "ForSequenceClassification",
    "distilbert": "ForSequenceClassification",
    "electra": "ForSequenceClassification",
    "mistral": "ForCausalLM",
    "mbart": "ForConditionalGeneration",
}
Placed = tuple[str, list[int], Mapping[str, Any]]
SMALL = {"size": 4, "at": "both"}
LOW = {"r": 3, "lora_alpha": 6.0}
MIXES: Mapping[str, list[Placed]] = {
    "head": [],
    "adapters": [("adapter", [0, 1], SMALL)],
    "adapters by layer": [
        ("adapter", [0], {"size": 5, "at": "ffn", "bias": False}),
        ("adapter", [1], {**SMALL, "activation": "gelu", "scale": 2.0}),
        ("adapter", [0], {"size": 3, "at": "attention"}),
    ],
    "parallel": [("adapter", [0, 1], {**SMALL, "form": "parallel", "scale": 4.0})],
    "compacter": [("compacter", [0, 1], {"size": 4, "at": "both"})],
    "lora": [("lora", [1], {**LOW, "targets": ("q", "v")})],
    "lora of several ranks": [
        ("lora", [0], {**LOW, "targets": ("k", "down")}),
        ("lora", [0, 1], {"r": 2, "targets": ("q", "up")}),
        ("moslora", [1], {"r": 4, "targets": ("q", "v")}),
    ],
    "prefix": [("prefix", [0, 1], {"length": 3})],
    "mix": [
        ("lora", [0, 1], {**LOW, "targets": ("q", "v")}),
        ("adapter", [1], SMALL),
        ("prefix", [1], {"length": 3}),
    ],
}


def write(folder: Path) -> None:
    """Every folder that can be written, and what its model says."""
    from autopeft.core.config import PeftConfig, Placement
    from autopeft.exporter import EXPORTERS, CardFacts, Trained, export
    from autopeft.method.attach import attach
    from autopeft.method.sites import shape_of
    from autopeft.model.backbone import Backbone, head_of
    from autopeft.model.head import NextTokens, OneLabel, TargetTokens, TokenLabels

    criteria = {
        "ForSequenceClassification": OneLabel(),
        "ForTokenClassification": TokenLabels(),
        "ForConditionalGeneration": TargetTokens(),
    }
    expected = {}
    for name, mix in _cases():
        model, reader = _base(name, folder)
        shape, cpu = shape_of(model), torch.device("cpu")
        criterion = criteria.get(FORMS[name], NextTokens())
        on = Backbone(model, reader, head_of(model), criterion, shape, torch.float32, cpu)
        stacks = range(0, len(shape.layers), 2)
        config = PeftConfig.of(
            Placement.of(method, [layer + first for first in stacks for layer in layers], options)
            for method, layers, options in MIXES[mix]
        )
        attached = attach(model, config, modules_to_save=on.modules_to_save)
        formula.fill(attached.trainable().items())
        said = formula.output(model).flatten().tolist()
        trained = Trained(on, config, attached.state_dict())
        attached.detach()
        if EXPORTERS["adapters"].obstacles(trained):
            print(f"{name} {mix}: refused")
            continue
        export("adapters", trained, folder / f"{name} {mix}", CardFacts(name))
        expected[f"{name} {mix}"] = said
    (folder / EXPECTED).write_text(json.dumps(expected), encoding="utf-8")


def read(folder: Path) -> None:
    """Prints how far off each folder is."""
    logging.disable(logging.WARNING)
    expected = json.loads((folder / EXPECTED).read_text(encoding="utf-8"))
    differences = {}
    for name, mix in _cases():
        if (case := f"{name} {mix}") not in expected:
            continue
        theirs, ours = formula.output(_of_card(folder / case)), torch.tensor(expected[case])
        theirs = theirs.flatten()
        differences[case] = float((theirs - ours).abs().max() / ours.abs().max())
        print(f"{case}: {differences[case]:.1e}")
    if not differences or max(differences.values()) > TOLERANCE:
        sys.exit("some folders say something else")


def _base(name: str, folder: Path) -> tuple[Any, Any]:
    """A model that is saved under its name, and its tokenizer."""
    model = formula.small(name, FORMS[name])
    reader = _tokenizer(model.config.pad_token_id or 0)
    model.config.pad_token_id, model.config.decoder_start_token_id = reader.pad_token_id, 0
    if model.can_generate():
        model.generation_config.decoder_start_token_id = 0
    model.save_pretrained(folder / name)
    model.name_or_path = name
    return model, reader


def _tokenizer(pad: int) -> Any:
    """A token for each of some words, and one at the place `pad`."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "One", "text.", "Another", "one,", "which", "is", "longer."]
    words.insert(pad, "<pad>")
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", unk_token="<unk>")


def _of_card(folder: Path) -> Any:
    """The model that the code of a card makes, which has answered a batch."""
    code = (folder / "README.md").read_text("utf-8").split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    with contextlib.chdir(folder.parent):
        exec(code.replace("max_new_tokens=20", "max_new_tokens=4"), names)  # positions are few
    return names["model"]


def _cases() -> Iterator[tuple[str, str]]:
    return itertools.product(FORMS, MIXES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("write", "read"))
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    (write if options.what == "write" else read)(options.folder)


if __name__ == "__main__":
    main()
