from __future__ import annotations

import numpy as np
import pytest

from autopeft.core.config import PeftConfig, Placement
from autopeft.core.size import size_of
from autopeft.search.features import features
from tests.contracts import sampler as kit


def lora(r: int, layers: range | list[int], **options: object) -> Placement:
    return Placement.of("lora", layers, {"r": r, "targets": ("q", "v"), **options})


def config(*placements: Placement, **train: object) -> PeftConfig:
    return PeftConfig.of(placements, train)


def test_rows_are_within_the_unit_cube_and_do_not_depend_on_the_order() -> None:
    space, rng = kit.problem().space, np.random.default_rng(0)
    configs = [PeftConfig(), *(space.draw(rng).config for _ in range(40))]
    rows = features(configs, space.n_layers)
    assert rows.min() >= 0
    assert rows.max() <= 1
    assert (np.ptp(rows, axis=0) > 0).all()
    np.testing.assert_array_equal(features(configs[::-1], space.n_layers), rows[::-1])


def test_different_configurations_of_a_space_have_different_rows() -> None:
    space, rng = kit.problem().space, np.random.default_rng(1)
    configs = {c.key: c for c in (space.draw(rng).config for _ in range(60))}
    rows = features(list(configs.values()), space.n_layers)
    assert len(np.unique(rows.round(9), axis=0)) == len(configs)


def test_size_and_depth_are_smooth() -> None:
    """Nearer sizes and nearer layers have nearer rows."""
    sizes = features([config(lora(r, range(12))) for r in (1, 2, 4, 64)], 12)
    gaps = np.linalg.norm(sizes - sizes[0], axis=1)
    assert (np.diff(gaps) > 0).all()
    depths = features([config(lora(8, [layer])) for layer in (0, 1, 2, 11)], 12)
    gaps = np.linalg.norm(depths - depths[0], axis=1)
    assert (np.diff(gaps) >= 0).all()
    assert gaps[1] > 0


def test_absent_is_further_from_small_than_small_from_double() -> None:
    rows = features([config(), *(config(lora(r, range(6))) for r in (1, 2, 256))], 6)
    assert np.linalg.norm(rows[0] - rows[1]) >= np.linalg.norm(rows[1] - rows[2])


def test_options_that_are_no_numbers_make_kinds_and_numbers_make_columns() -> None:
    same = [config(lora(8, range(6))), config(lora(8, range(6)))]
    assert np.ptp(features(same, 6), axis=0).max() == 0
    for one, other in (
        (config(lora(8, range(6))), config(lora(8, range(6), targets=("q",)))),
        (config(lora(8, [0], scale=0.1)), config(lora(8, [0], scale=0.5))),
        (config(weight_decay=0.0), config(weight_decay=0.1)),
        (config(), config(lr_scheduler_type="cosine")),
    ):
        assert np.ptp(features([one, other], 6), axis=0).max() == pytest.approx(1)


def test_learning_rates_count_by_their_logarithm() -> None:
    rows = features([config(learning_rate=rate) for rate in (1e-4, 1e-3, 1e-2)], 6)
    np.testing.assert_allclose(rows[:, 0], [0, 0.5, 1])


def test_one_layer_no_configuration_and_no_difference() -> None:
    assert features([config(lora(8, [0])), config()], 1).shape[0] == 2
    assert features([PeftConfig()], 4).shape == (1, 1)
    assert features([], 4).shape[0] == 0
    assert size_of(Placement.of("bitfit", [0], {})) == 1
