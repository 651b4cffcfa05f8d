from __future__ import annotations

import numpy as np
import pytest

from autopeft.core.config import PeftConfig, Placement
from autopeft.search.sensitivity import Sensitivity, probes
from autopeft.space.space import SearchSpace

FORMS = {"choice": ["parallel", "sequential"]}
SPACE = SearchSpace.load(
    {
        "name": "kinds",
        "layers": {"groups": 3},
        "place": [
            {"method": "lora", "targets": ["q", "v"], "r": {"choice": [0, 4, 16]}},
            {"method": "adapter", "size": {"choice": [0, 8]}, "form": FORMS},
            {"method": "bitfit", "where": ["g3"]},
        ],
    }
).on(6)


def lora(r: int, layers: tuple[int, ...] = tuple(range(6))) -> Placement:
    return Placement.of("lora", layers, {"targets": ("q", "v"), "r": r})


def test_there_is_one_probe_for_each_kind_at_its_largest() -> None:
    found = [config.placements for config in probes(SPACE)]
    assert all(len(placements) == 1 for placements in found)
    told = {
        (p.method, dict(p.options).get("form"), dict(p.options).get("r"), p.layers)
        for (p,) in found
    }
    every = tuple(range(6))
    assert told == {
        ("lora", None, 16, every),
        ("adapter", "parallel", None, every),
        ("adapter", "sequential", None, every),
        ("bitfit", None, None, (4, 5)),
    }


def test_kinds_of_other_configurations_are_probed_besides() -> None:
    prefix = Placement.of("prefix", (1, 2), {"length": 4})
    others = [PeftConfig.of([prefix, lora(64, (0,))]), PeftConfig.of([lora(2)])]
    found = [placement for config in probes(SPACE, others) for placement in config.placements]
    assert len(found) == len(probes(SPACE)) + 1
    assert prefix in found
    assert lora(64) in found


def test_squares_add_up_over_layers_placements_and_sizes() -> None:
    bitfit = Placement.of("bitfit", (4, 5), {})
    told = [(PeftConfig.of([lora(16)]), [16.0 * at for at in range(6)])]
    sensitivity = Sensitivity.of([*told, (PeftConfig.of([bitfit]), [0, 0, 0, 0, 2.0, 3.0])])
    configs = [
        PeftConfig.of([lora(4, (1, 3))]),
        PeftConfig.of([lora(8, (2,)), bitfit]),
        PeftConfig.of([Placement.of("prefix", (0,), {"length": 4})]),
        PeftConfig.of(),
    ]
    assert sensitivity(configs) == pytest.approx(np.sqrt([4 * 1 + 4 * 3, 8 * 2 + 5, 0, 0]))


def test_no_configurations_have_no_sensitivity() -> None:
    assert Sensitivity.of([])([]).shape == (0,)
