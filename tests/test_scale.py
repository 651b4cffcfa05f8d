"""The simulator of studies with many workers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from autopeft.core.config import PeftConfig, Placement
from benchmarks.scale.__main__ import main
from benchmarks.scale.record import CURVES, RUNGS, write
from benchmarks.scale.replay import Replay
from benchmarks.scale.simulation import Clock, Outcome

pytestmark = pytest.mark.benchmark

LORA = {"targets": ("q", "v"), "r": 8}


def lora(layers: list[int], rate: float = 2e-3) -> PeftConfig:
    return PeftConfig.of([Placement.of("lora", layers, LORA)], {"learning_rate": rate})


def test_small_studies_run_and_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "scale.json"
    main(["--small", "--output", str(output)])
    shown = capsys.readouterr().out
    rows = json.loads(output.read_text())["rows"]
    assert [(row["workers"], row["trials"], row["sampler"]) for row in rows] == [
        (4, 30, "random"),
        (16, 40, "nsga2"),
    ]
    for row in rows:
        trained = row["states"]["complete"] + row["states"]["stopped"]
        assert trained == row["trials"]
        assert row["states"]["stopped"] > row["states"]["complete"]
        assert row["makespan_ratio"] == row["makespan"] / row["lower_bound"] >= 1
        assert 0 <= row["idle_share"] < 1
        assert min(row["decisions_per_second"], row["bytes_per_trial"], row["peak_rss"]) > 0
        assert 5 < row["commits_per_trial"] < row["statements_per_trial"] < 60
    written = output.stat().st_mtime_ns
    main(["--small", "--output", str(output)])
    assert capsys.readouterr().out == shown
    assert output.stat().st_mtime_ns == written


def test_curves_are_those_of_the_nearest_configuration_and_depend_on_the_seed() -> None:
    replay = Replay(CURVES, 0)
    document = json.loads(CURVES.read_text(encoding="utf-8"))
    row = next(row for row in document["rows"] if row["index"] == 3)
    config = PeftConfig.from_dict(row["config"])
    assert replay.nearest(config).config == config
    assert replay.peak_memory(config, row["trainable_params"]) == row["peak_memory"]
    reports = replay.reports(config, 7)
    assert [r.fidelity for r in reports] == list(RUNGS)
    assert {r.member for r in reports} == {7}
    losses = np.array([r.metrics["validation_loss"] for r in reports])
    recorded = np.array(row["curve"])[:, 3]
    assert (np.abs(losses - recorded) < 5 * replay.noise[:, 1] + 1e-9).all()
    assert reports == Replay(CURVES, 0).reports(config, 7) != Replay(CURVES, 1).reports(config, 7)


def test_noise_is_that_between_seeds_of_one_configuration(tmp_path: Path) -> None:
    setting = {"setting": {"rungs": list(RUNGS)}}
    row = {"config": {"place": []}, "trainable_params": 0, "peak_memory": 1}
    curves = [[[r, 1, 0.5 + d, 1.0, 1.0] for r in RUNGS] for d in (0.1, -0.1)]
    rows = [{**row, "index": 0, "seed": seed, "curve": c} for seed, c in enumerate(curves)]
    write(tmp_path / "curves.json", {**setting, "rows": rows})
    replay = Replay(tmp_path / "curves.json", 0)
    assert replay.noise[:, 0] == pytest.approx([np.sqrt(0.02)] * 3)
    assert (replay.noise[:, 1:] == 0).all()


def test_deeper_training_takes_longer() -> None:
    replay = Replay(CURVES, 0)
    top, deep = (
        np.mean([sum(replay.durations(lora(layers, rate))) for rate in np.geomspace(1e-3, 5e-3)])
        for layers in ([5], [0])
    )
    assert 1.5 < deep / top < 3


def test_charged_decisions_queue_up() -> None:
    assert Clock(charge=False).decided(3.0, 0.0) == 3.0
    clock = Clock(charge=True)
    first, second = clock.decided(1.0, 0.0), clock.decided(2.0, 0.0)
    assert 1.0 < first < second


def test_bounds() -> None:
    outcome = Outcome(makespan=10.0, work=[8.0, 4.0, 4.0])
    assert outcome.lower_bound(4) == 8.0
    assert outcome.lower_bound(1) == 16.0
    assert outcome.idle_share(2) == pytest.approx(0.2)
