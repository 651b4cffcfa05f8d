"""The mean hypervolume of every sampler after every trial."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.search.figures import Run


def draw(runs: Sequence[Run], path: Path) -> None:
    """One panel a problem; bands are 95 per cent intervals of the mean."""
    problems = list(dict.fromkeys(run["problem"] for run in runs))
    figure = Figure((6 * len(problems), 4))
    panels = figure.subplots(1, len(problems), squeeze=False)
    for panel, problem in zip(panels[0], problems, strict=True):
        for sampler in dict.fromkeys(run["sampler"] for run in runs):
            chosen = [r for r in runs if (r["problem"], r["sampler"]) == (problem, sampler)]
            volumes = np.array([run["volumes"] for run in chosen])
            trials = np.arange(1, volumes.shape[1] + 1)
            mean, error = volumes.mean(0), 1.96 * volumes.std(0) / np.sqrt(len(volumes))
            panel.plot(trials, mean, label=sampler)
            panel.fill_between(trials, mean - error, mean + error, alpha=0.2)
        panel.set(title=problem, xlabel="trials", ylabel="share of the hypervolume", ylim=(0.8, 1))
        panel.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
