"""Writes the card of a table: how it was made, its noise, what early rungs say of the last.

`python -m benchmarks.search.card movies` reads `tables/movies.csv` and writes `tables/movies.md`.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from autopeft.core.config import PeftConfig
from autopeft.objective.pareto import front
from autopeft.search.features import Encoder
from autopeft.search.surrogate import Surrogate
from benchmarks.search.every_layer import SPACE, EveryLayer
from benchmarks.search.measure import SEEDS, config_of
from benchmarks.search.problem import Table, last
from benchmarks.search.texts import N_VALIDATION, SHARES, TEXTS, tables

N_FITTED = 200
"""Rows to which the surrogate is fitted whose error the card says."""


def card(name: str) -> str:
    """The text of the card."""
    texts, table = TEXTS[name], Table(tables() / f"{name}.csv")
    accuracy, params = table.column(last("accuracy")), table.column("trainable_params")
    best = front(np.column_stack([-accuracy, params]))
    error, spread = surrogate_error(table)
    rungs = ", ".join(f"{rung:.3g}" for rung in texts.rungs)
    facts = [
        f"{len(table.rows)} configurations with seed 0, {len(table.repeats)} of them with "
        f"{len(SEEDS)} seeds",
        f"accuracy on validation from {accuracy.min():.3f} to {accuracy.max():.3f}, of the head "
        f"alone {_head_alone(table):.3f}",
        f"front of accuracy and trainable parameters: {best.sum()} configurations",
        f"standard deviation of the accuracy {accuracy.std():.4f} between configurations, "
        f"{noise(table):.4f} between seeds, {noise(table, shared=False):.4f} without what a seed "
        "does to all configurations alike",
        f"a model of {N_FITTED} rows: mean absolute error {error:.4f} on the others, whose mean "
        f"deviation is {spread:.4f}",
    ]
    large = tables() / SPACE / f"{name}.csv"
    if large.is_file():
        facts.append(_of_every_layer(name, large))
    return "\n".join(
        [
            f"# Table `{name}`",
            "",
            f"{texts.words}; {texts.n_train} texts of training, {N_VALIDATION} of validation, cut "
            f"after {texts.max_length} tokens. Every configuration of `three_groups.yaml` on "
            f"all-MiniLM-L6-v2, trained by `python -m benchmarks.search.measure {name}`, with "
            f"reports after {rungs} epochs.",
            "",
            *(f"- {fact}" for fact in facts),
            "",
            "Spearman correlation of a metric of a report with the accuracy of the last:",
            "",
            "| report | accuracy | validation loss | training loss |",
            "|---|---|---|---|",
            *_correlations(table),
            "",
        ]
    )


def noise(table: Table, *, shared: bool = True) -> float:
    """Standard deviation of the accuracy between seeds, pooled over what has all of them.

    Args:
        table: with repeats.
        shared: whether the mean of each seed over the configurations counts.
    """
    column = last("accuracy")
    repeats = [sorted(rows, key=lambda row: row["seed"]) for rows in table.repeats.values()]
    whole = [[row[column] for row in rows] for rows in repeats if len(rows) == len(SEEDS)]
    if len(whole) < 2:
        return float("nan")
    accuracies = np.array(whole)
    rest = accuracies - accuracies.mean(axis=1, keepdims=True)
    n_free = (len(whole) - (0 if shared else 1)) * (len(SEEDS) - 1)
    rest = rest if shared else rest - rest.mean(axis=0)
    return float(np.sqrt((rest**2).sum() / n_free))


def surrogate_error(table: Table) -> tuple[float, float]:
    """Mean absolute error of a model of `N_FITTED` rows on the others, and their mean deviation."""
    configs: list[PeftConfig] = [config_of(table.space, point) for point in table.rows]
    rows = Encoder(configs, table.space.n_layers)(configs)
    accuracy = table.column(last("accuracy"))
    order = np.random.default_rng(0).permutation(len(rows))
    fitted, others = order[:N_FITTED], order[N_FITTED:]
    model = Surrogate(rows[fitted], accuracy[fitted], np.zeros(len(fitted)))
    means, _ = model(rows[others])
    deviation = np.abs(accuracy[others] - accuracy[others].mean()).mean()
    return float(np.abs(means - accuracy[others]).mean()), float(deviation)


def _of_every_layer(name: str, path: Path) -> str:
    surrogate = EveryLayer(name)
    trained = Table(path, surrogate.space)
    error, spread, correlation = surrogate.error(trained)
    return (
        f"the surrogate that serves `{SPACE}.yaml`, of {math.prod(surrogate.sizes):.2g} points: "
        f"mean absolute error {error:.4f} on {len(trained.rows)} trained ones, whose mean "
        f"deviation is {spread:.4f}; rank correlation {correlation:.2f}"
    )


def _head_alone(table: Table) -> float:
    nothing = tuple(0 for _ in table.space.dimensions)
    return table.rows[nothing][last("accuracy")] if nothing in table.rows else float("nan")


def _correlations(table: Table) -> list[str]:
    final = table.column(last("accuracy"))
    lines = []
    for report in range(1, len(SHARES) + 1):
        metrics = ("accuracy", "validation_loss", "train_loss")
        columns = [table.column(f"{metric}@{report}") for metric in metrics]
        cells = [f"{spearmanr(column, final).statistic:.2f}" for column in columns]
        lines.append(f"| {report} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the card of a table.")
    parser.add_argument("table", choices=TEXTS)
    name = parser.parse_args().table
    (tables() / f"{name}.md").write_text(card(name), encoding="utf-8")


if __name__ == "__main__":
    main()
