from __future__ import annotations

import numpy as np
import pytest

from autopeft.core.config import PeftConfig, Placement
from autopeft.objective.objective import load_objectives
from autopeft.search.expected import N_LEAST, expected_losses

OBJECTIVES = load_objectives("accuracy-params")
SIZES = [1, 2, 4, 8, 16, 32, 64, 128] * 3
CONFIGS = [PeftConfig.of([Placement.of("lora", [i % 6, 6], {"r": r})]) for i, r in enumerate(SIZES)]


def losses(noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Losses that fall with the size, without and with noise, and known ones."""
    truth = -0.7 - 0.02 * np.log2(SIZES)
    told = truth + np.random.default_rng(0).normal(0, noise, len(SIZES))
    return truth, np.column_stack([told, np.log(SIZES)])


def test_luck_is_taken_out() -> None:
    truth, told = losses(0.03)
    expected = expected_losses(CONFIGS, told, OBJECTIVES)
    assert np.abs(expected[:, 0] - truth).mean() < 0.7 * np.abs(told[:, 0] - truth).mean()
    assert (expected[:, 1] == told[:, 1]).all()


def test_what_is_told_without_noise_is_believed() -> None:
    truth, told = losses(0.0)
    assert expected_losses(CONFIGS, told, OBJECTIVES)[:, 0] == pytest.approx(truth, abs=5e-3)


def test_a_collapse_is_still_the_worst_and_spoils_no_other() -> None:
    truth, told = losses(0.0)
    told[5, 0] = -0.3
    expected = expected_losses(CONFIGS, told, OBJECTIVES)[:, 0]
    others = np.arange(len(SIZES)) != 5
    assert np.abs(expected - truth)[others].max() < 0.06


def test_few_trials_are_taken_as_they_are() -> None:
    _, told = losses(0.03)
    few = slice(N_LEAST - 1)
    assert (expected_losses(CONFIGS[few], told[few], OBJECTIVES) == told[few]).all()
