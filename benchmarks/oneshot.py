"""What one-shot searches propose, against random configurations of the same size.

`python -m benchmarks.oneshot` lets each proposer, as it comes, search `layer-mix`, and where it has
one its paper's own space, for MiniLM on 1,000 sentences, in five repetitions with other splits and
seeds. What it proposes is trained, and
for each proposal the random configuration with the nearest number of parameters, all of them with
the same settings, and scored on the test split, which no search sees. Of a supernet it also tells
how the weights that these configurations inherit rank them, against their own trainings (Kendall's
tau). It writes `benchmarks/results/oneshot.json`, from lines that are kept as they come.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from safetensors.torch import load_file
from scipy.stats import kendalltau

from autopeft.core.order import Order
from autopeft.core.report import Proposals
from autopeft.objective.objective import load_objectives
from autopeft.objective.quantity import Known
from autopeft.oneshot.proposer import Problem, Proposer
from autopeft.oneshot.registry import PROPOSERS, make_proposer
from autopeft.oneshot.supernet import Supernet
from autopeft.search.surrogate import one_thread
from autopeft.space.bound import Drawn
from autopeft.train.member_training import STATE_FILE
from benchmarks.rows import Row, rows_of
from benchmarks.value.__main__ import machine
from benchmarks.value.bench import EPOCHS, Bench, bench
from benchmarks.value.figures import POINTS, interval

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "oneshot.json"
SPACE = "layer-mix"
OWN = {"switches": "s3delta"}
"""Spaces of papers."""

N_RANDOM = 400
"""Random configurations among which the nearest in size are taken."""


@dataclass(frozen=True)
class Search:
    """A search, and the trainings of what it proposes and of its like."""

    data: str
    space: str
    proposer: str
    seed: int
    n_train: int = 1000


def carry_out(order: Search) -> Row:
    """Parameters and test accuracies of proposals and of random configurations like them."""
    with one_thread():
        here = bench(order.data, order.seed, order.n_train)
        problem, seed = problem_of(here, order.space), order.seed
        with TemporaryDirectory() as folder:
            asked = Order((EPOCHS,), seed, folder)
            search = make_proposer({"type": order.proposer})
            *_, last = search.propose(problem, here.trainer, 0, asked)
            assert isinstance(last, Proposals)
            proposed = [problem.space.at(point) for point in last.points]
            pairs = [*proposed, *_alike(problem, proposed, np.random.default_rng((seed, 9)))]
            promised = _inherited(here, problem, search, asked, pairs)
        trained = [_trained(here, problem, each, seed) for each in pairs]
        rows = [{**row, **of} for row, of in zip(trained, promised, strict=True)]
        n = len(proposed)
        return {"epochs": last.epochs, "proposed": rows[:n], "random": rows[n:]}


def _inherited(
    here: Bench, problem: Problem, search: Proposer, asked: Order, pairs: Sequence[Drawn]
) -> list[Row]:
    """What configurations reach with the weights that a search has left, if it has any."""
    if not isinstance(search, Supernet):
        return [{} for _ in pairs]
    with here.trainer.lend(problem.corner(1.0).config) as lent:
        shared = search.shared(problem, lent, asked.seed)
        shared.load_state_dict(load_file(Path(str(asked.folder)) / STATE_FILE))
        judge = search.inherited(problem, lent, shared)
        return [{"inherited": -judge(each)[0]} for each in pairs]


def problem_of(here: Bench, space: str) -> Problem:
    """Accuracy against trained parameters."""
    objectives = load_objectives("accuracy-params")
    known = {"trainable_params": Known(here.params)}
    return Problem(here.space(space), objectives, known, {})


def _alike(problem: Problem, proposed: Sequence[Drawn], rng: np.random.Generator) -> list[Drawn]:
    """For each the random configuration that is nearest in size, all of them different."""
    cost = problem.known["trainable_params"].value
    drawn = {each.config.key: each for each in (problem.draw(rng) for _ in range(N_RANDOM))}
    alike: list[Drawn] = []
    for each in proposed:
        left = [d for d in drawn.values() if d not in alike and d.config.placements]
        alike.append(min(left, key=lambda d: abs(cost(d.config) - cost(each.config))))
    return alike


def _trained(here: Bench, problem: Problem, drawn: Drawn, seed: int) -> Row:
    config = problem.placed(drawn).config
    accuracy = here.tested(config, EPOCHS, 1000 + seed)
    return {"config": config.to_dict(), "params": here.params(config), "accuracy": accuracy}


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """By proposer what it gains over random configurations of its size, and what it costs."""
    told: dict[str, Any] = {}
    for name, own in _searches(rows).items():
        gains = [POINTS * (_mean(row["proposed"]) - _mean(row["random"])) for row in own]
        told[name] = {
            "cost_in_trials": round(fmean(row["epochs"] for row in own) / EPOCHS, 2),
            "accuracy_gain": round(fmean(gains), 2),
            "interval": interval(gains),
            "params_ratio": round(fmean(map(_ratio, own)), 3),
            "accuracies": [[round(_mean(row[kind]), 4) for row in own] for kind in KINDS],
        }
        if all("inherited" in each for row in own for each in row["proposed"]):
            taus = [_tau([*row["proposed"], *row["random"]]) for row in own]
            told[name]["kendall_tau"] = round(fmean(taus), 3)
            told[name]["kendall_tau_interval"] = interval(taus)
    return told


KINDS = ("proposed", "random")


def _searches(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """By proposer, and by proposer and space where that is a paper's own."""
    told: dict[str, list[Row]] = {}
    for row in rows:
        is_own = row["space"] != SPACE
        told.setdefault(
            f"{row['proposer']} in {row['space']}" if is_own else row["proposer"], []
        ).append(row)
    return told


def _mean(trained: Sequence[Row]) -> float:
    return fmean(each["accuracy"] for each in trained)


def _ratio(row: Row) -> float:
    """Parameters of proposals over those of their like."""
    one, other = (sum(each["params"] for each in row[kind]) for kind in KINDS)
    return float(one / other)


def _tau(trained: Sequence[Row]) -> float:
    inherited, alone = ([each[key] for each in trained] for key in ("inherited", "accuracy"))
    return float(kendalltau(inherited, alone).statistic)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", default=["movies"])
    parser.add_argument("--proposers", nargs="+", default=list(PROPOSERS), choices=list(PROPOSERS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="some minutes, into runs/oneshot")
    chosen = parser.parse_args()
    output = ROOT / "runs" / "oneshot" / "oneshot.json" if chosen.small else RESULTS
    output.parent.mkdir(parents=True, exist_ok=True)
    n_train = 32 if chosen.small else 1000
    seeds = range(1 if chosen.small else chosen.seeds)
    orders = [
        Search(data, space, proposer, seed, n_train)
        for seed in seeds
        for data in chosen.sets
        for proposer in chosen.proposers
        for space in (SPACE, OWN.get(proposer))
        if space
    ]
    rows = rows_of(orders, carry_out, output.with_name("oneshot_searches.jsonl"), chosen.workers)
    by_data = {data: figures([r for r in rows if r["data"] == data]) for data in chosen.sets}
    document = {**by_data, "machine": machine(), "seeds": list(seeds)}
    output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(by_data, indent=1))


if __name__ == "__main__":
    main()
