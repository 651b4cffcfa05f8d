"""The benchmarks that are quick at a small size still run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_trial_cost_trains_the_same_parameters_everywhere_and_resumes(tmp_path: Path) -> None:
    output = tmp_path / "trial_cost.json"
    command = [sys.executable, "-m", "benchmarks.trial_cost", "--small", "--output", str(output)]
    shown = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    document = json.loads(output.read_text())
    trials = [row for row in document["rows"] if row["variant"] != "lora step"]
    names = [row["variant"] for row in trials]
    assert names == ["ours fresh", "ours warm", "ours warm", "hf", "hf tuned"]
    assert len({row["trained_parameters"] for row in trials}) == 1
    for row in trials:
        parts = row["start"] + row["training"] + row["evaluation"]
        assert row["seconds"] == pytest.approx(parts)
        assert min(row["start"], row["training"], row["evaluation"]) > 0
    ratios = {
        f"ours {age} / {theirs}" for age in ("fresh", "warm") for theirs in ("hf", "hf tuned")
    }
    assert set(document["ratios"]) == ratios
    assert 0.1 < document["lora_step_ratio"] < 10
    written = output.stat().st_mtime_ns
    again = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert again == shown
    assert output.stat().st_mtime_ns == written
