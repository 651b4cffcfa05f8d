"""Problems whose greatest hypervolume is known in closed form, over spaces of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from botorch.test_functions.base import MultiObjectiveTestProblem
from botorch.test_functions.multi_objective import (
    DH1,
    DTLZ2,
    ZDT1,
    ZDT2,
    ZDT3,
    BraninCurrin,
    Penicillin,
    VehicleSafety,
)

from autopeft.core.config import PeftConfig
from autopeft.core.size import size_of
from autopeft.objective.objective import Objective
from autopeft.objective.pareto import hypervolume
from autopeft.space.space import SearchSpace
from benchmarks.search.measure import bound_space
from benchmarks.search.problem import Problem

SETTINGS: Mapping[str, tuple[float, float]] = {
    "learning_rate": (1.0, 2.0),
    "max_grad_norm": (1.0, 2.0),
    "weight_decay": (0.0, 1.0),
    "warmup_ratio": (0.0, 0.9),
    "label_smoothing_factor": (0.0, 0.9),
}
OPTIONS: Mapping[str, tuple[float, float]] = {
    "lora_alpha": (1.0, 2.0),
    "lora_dropout": (0.0, 0.9),
}
"""Ranges of real numbers, each a coordinate, in the order in which a problem takes them."""

SIZES = [0, 1, 3, 6, 12, 24, 48, 96, 192, 384, 768]


def continuous(name: str, function: MultiObjectiveTestProblem) -> Problem:
    """A function of BoTorch, to be minimized, over the settings of one LoRA."""
    ranges = list({**SETTINGS, **OPTIONS}.items())[: function.dim]
    nodes = {key: {"float": list(span)} for key, span in ranges}
    document: dict[str, Any] = {
        "name": name,
        "layers": {"groups": 1},
        "place": [
            {"method": "lora", "r": 8, **{k: v for k, v in nodes.items() if k in OPTIONS}},
        ],
        "train": {key: node for key, node in nodes.items() if key in SETTINGS},
    }
    space = SearchSpace.load(document).on(bound_space().shape)
    low, high = function.bounds.numpy()

    def values(config: PeftConfig) -> tuple[float, ...]:
        (lora,) = config.placements
        settings = dict((*lora.options, *config.train))
        keys = (name.partition("@")[0].split(".")[-1] for name in space.dimensions)
        dimensions = space.dimensions.values()
        units = [d.to_unit(settings[key]) for key, d in zip(keys, dimensions, strict=True)]
        point = low + np.array(units) * (high - low)
        return tuple(function(torch.from_numpy(point)).tolist())

    return Problem(name, space, _objectives(function), {}, values, function.max_hv)


def masked(name: str) -> Problem:
    """DH1 over the encoding of AutoPEFT: three sizes, and for every layer whether it is left out.

    Its best points have all layers and the middle size of the last two modules.
    """
    space = SearchSpace.load("autopeft").on(12)
    function = DH1(dim=3 + 12)

    def values(config: PeftConfig) -> tuple[float, ...]:
        places, tuned = [0, 0, 0], set[int]()
        for placement in config.placements:
            options = dict(placement.options)
            module = ("sequential", "parallel", None).index(options.get("form"))
            places[module] = SIZES.index(int(size_of(placement)))
            tuned |= set(placement.layers)
        left_out = [float(layer not in tuned) for layer in range(12)]
        x = [places[0] / 10, *(place / 5 - 1 for place in places[1:]), *left_out]
        return tuple(function(torch.tensor(x, dtype=torch.float64)).tolist())

    best = [(x, 1 - x**2) for x in np.linspace(0, 1, 11)]
    corner = [o.reference for o in _objectives(function)]
    return Problem(name, space, _objectives(function), {}, values, hypervolume(best, corner))


def _objectives(function: MultiObjectiveTestProblem) -> tuple[Objective, ...]:
    worst = function.ref_point.tolist()
    return tuple(Objective(f"f{i}", "minimize", reference=w) for i, w in enumerate(worst))


CLOSED: Mapping[str, Callable[[], Problem]] = {
    "branin-currin": lambda: continuous("branin-currin", BraninCurrin()),
    "zdt1": lambda: continuous("zdt1", ZDT1(dim=5)),
    "zdt2": lambda: continuous("zdt2", ZDT2(dim=5)),
    "zdt3": lambda: continuous("zdt3", ZDT3(dim=5)),
    "dtlz2": lambda: continuous("dtlz2", DTLZ2(dim=5)),
    "vehicle-safety": lambda: continuous("vehicle-safety", VehicleSafety()),
    "penicillin": lambda: continuous("penicillin", Penicillin()),
    "dh1-autopeft": lambda: masked("dh1-autopeft"),
}
"""By name."""
