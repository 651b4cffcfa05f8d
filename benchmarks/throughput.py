"""Compares packs of configurations with one at a time, and predicted with measured memory.

Run `python -m benchmarks.throughput` on a machine with a GPU that does nothing else. Without a GPU
it measures the smaller backbone in small packs, with `--small` tiny ones, which try the script.
Backbones of published shapes have random weights; texts are random tokens, all of one length or
one less.

- `packs`: up to 16 configurations train at once, each with its own batch of 8 texts, optimizer and
  learning rate. `one_at_a_time` are the same configurations one after another. `lora` packs are
  alike (r 8 on q and v), members of `mix` packs are drawn from `layer-mix`. The figures at the top
  are those of `lora` on the first backbone.
- `memory`: the most bytes allocated in three training steps, as CUDA's allocator counts them, or as
  the CPU's does, against the prediction, of configurations alone and of packs of four.

Each finished row is written at once, so that an interrupted run continues where it stopped; delete
the file of results to start anew.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers
from rich.console import Console

from autopeft.core.config import freeze
from autopeft.core.settings import BackboneSettings
from autopeft.memory.predict import predict_pack
from autopeft.model.precision import target_device
from benchmarks.packed import Texts, configs_of, peak_memory, seconds_per_step
from benchmarks.random_backbones import CONFIGS, both, folder_of

RESULTS = Path(__file__).parent / "results" / "throughput.json"
PACKS = (1, 2, 4, 8, 16)
KINDS = ("lora", "mix")
METHODS = ("lora", "adapter", "mix")
RATES = ("samples_per_second", "one_at_a_time", "speedup")
MEMORY_PACK = 4

Row = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """What is measured.

    Attributes:
        models: names of `random_backbones.CONFIGS`.
        forms: of the backbone for memory, by name; the first is also that of the packs.
        packs: numbers of members.
        batch_size: texts of each member.
        tokens: of the longest texts.
        steps: timed.
    """

    models: tuple[str, ...]
    forms: tuple[str, ...]
    packs: tuple[int, ...] = PACKS
    batch_size: int = 8
    tokens: int = 128
    steps: int = 20


FULL = Size(("BERT-base 0.1B", "Llama 1.2B"), ("bfloat16", "checkpointing", "nf4"))
ON_CPU = Size(FULL.models[:1], FULL.forms[:2], (1, 2, 4), 4, 64, 5)
SMALL = Size(("BERT tiny", "Llama tiny"), ("float32", "checkpointing"), (1, 2), 2, 16, 1)
FORMS = {
    "float32": BackboneSettings(dtype="float32"),
    "bfloat16": BackboneSettings(dtype="bfloat16"),
    "checkpointing": BackboneSettings(dtype="bfloat16", gradient_checkpointing=True),
    "nf4": BackboneSettings(dtype="bfloat16", quantization="nf4"),
}


def pack_rows(model: str, size: Size, source: str, device: str) -> Iterator[Row]:
    """Samples a second of every pack of a backbone, and of its members one after another."""
    meta, on = both(source, FORMS[size.forms[0]], device)
    texts = Texts(size.batch_size, size.tokens)
    for kind in KINDS:
        configs = configs_of(kind, meta.shape, max(size.packs), texts)
        distinct = configs if kind == "mix" else configs[:1]
        alone = [seconds_per_step(on, [config], texts, size.steps) for config in distinct]
        alone += alone[:1] * (len(configs) - len(alone))
        for members in size.packs:
            packed = configs[:members]
            one = members == 1
            together = alone[0] if one else seconds_per_step(on, packed, texts, size.steps)
            samples = members * size.batch_size
            yield {
                "model": model,
                "kind": kind,
                "members": members,
                "samples_per_second": samples / together,
                "one_at_a_time": samples / sum(alone[:members]),
                "speedup": sum(alone[:members]) / together,
            }


def memory_rows(model: str, size: Size, source: str, device: str) -> Iterator[Row]:
    """Predicted and measured bytes of methods, forms and packs on a backbone."""
    texts = Texts(size.batch_size, size.tokens)
    for form in size.forms:
        settings = FORMS[form]
        meta, on = both(source, settings, device)
        for method, members in product(METHODS, (1, min(MEMORY_PACK, max(size.packs)))):
            configs = configs_of(method, meta.shape, members, texts)
            changed = settings.model_dump(exclude_defaults=True)
            predicted = predict_pack(
                meta,
                [replace(config, backbone=freeze(changed)) for config in configs],
                batch_sizes=[size.batch_size] * members,
                sequence_length=size.tokens,
                device=on.device.type,
            ).peak
            measured = peak_memory(on, configs, texts)
            yield {
                "model": model,
                "form": form,
                "method": method,
                "members": members,
                "predicted": predicted,
                "measured": measured,
                "error_percent": 100 * (predicted / measured - 1),
            }
        del on
        release()


def release() -> None:
    """Gives the memory of a model that is gone back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


PARTS: Mapping[str, Callable[[str, Size, str, str], Iterator[Row]]] = {
    "packs": pack_rows,
    "memory": memory_rows,
}


def outcome(document: Mapping[str, Any]) -> dict[str, Any]:
    """The headlines: `lora` packs of the first backbone, the largest error of a prediction."""
    packs = [row for row in document["rows"] if row["part"] == "packs"]
    first = document["size"]["models"][0]
    headline = [row for row in packs if row["model"] == first and row["kind"] == KINDS[0]]
    errors = [abs(row["error_percent"]) for row in document["rows"] if row["part"] == "memory"]
    return {
        "packs": {str(row["members"]): {name: row[name] for name in RATES} for row in headline},
        "memory_error_percent": max(errors, default=None),
        "median_memory_error_percent": median(errors) if errors else None,
    }


def run(output: Path, size: Size, device: str, only: Sequence[str]) -> dict[str, Any]:
    """Runs what `output` lacks of `only`, parts and names of backbones."""
    terms = {"device": name_of(device), "size": json.loads(json.dumps(asdict(size)))}
    document: dict[str, Any] = {**terms, "versions": versions(), "rows": []}
    if output.is_file():
        document = json.loads(output.read_text(encoding="utf-8"))
        if any(document[name] != value for name, value in terms.items()):
            sys.exit(f"{output} is of another device or size; delete it or name another --output")
    done = {(row["model"], row["part"]) for row in document["rows"]}
    with tempfile.TemporaryDirectory() as folder:
        for model, part in product(size.models, PARTS):
            if {model, part} <= set(only) and (model, part) not in done:
                rows = PARTS[part](model, size, folder_of(model, Path(folder)), device)
                document["rows"] += [{"part": part, **row} for row in rows]
                write(output, {**document, **outcome(document)})
                release()
    return {**document, **outcome(document)}


def name_of(device: str) -> str:
    """`cpu`, or what the GPU is called."""
    return torch.cuda.get_device_name() if target_device(device).type == "cuda" else "cpu"


def versions() -> dict[str, str]:
    return {"torch": torch.__version__, "transformers": transformers.__version__}


def write(output: Path, document: Mapping[str, Any]) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_suffix(".part")
    unfinished.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(output)


def show(document: Mapping[str, Any]) -> None:
    console = Console(width=120)
    for row in document["rows"]:
        if row["part"] == "packs":
            console.print(
                f"{row['model']}, {row['kind']}, {row['members']} members: "
                f"{row['samples_per_second']:.1f} samples/s, one at a time "
                f"{row['one_at_a_time']:.1f}: {row['speedup']:.2f} times"
            )
        else:
            console.print(
                f"{row['model']}, {row['form']}, {row['members']} x {row['method']}: "
                f"predicted {row['predicted'] / 2**20:.1f} MiB, "
                f"measured {row['measured'] / 2**20:.1f} MiB: {row['error_percent']:+.2f} %"
            )
    console.print(f"largest error of a prediction: {document['memory_error_percent']} %")


def main() -> None:
    parser = argparse.ArgumentParser(description="Packs against one at a time; memory.")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=tuple(PARTS))
    parser.add_argument("--models", nargs="+", choices=CONFIGS, default=tuple(CONFIGS))
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--small", action="store_true", help="tiny models, to try the script")
    parser.add_argument("--output", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    device = str(target_device(chosen.device))
    if device == "cpu":
        torch.set_num_threads(1)
    usual = ON_CPU if device == "cpu" else FULL
    size = SMALL if chosen.small else usual
    show(run(chosen.output, size, device, (*chosen.parts, *chosen.models)))


if __name__ == "__main__":
    main()
