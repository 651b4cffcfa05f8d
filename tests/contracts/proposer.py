"""What every one-shot search must do, run over all of them without a branch on one."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

import optuna

from autopeft.core.config import PeftConfig
from autopeft.core.order import Order
from autopeft.core.report import Proposals, Report
from autopeft.method.count import count, trained_elements
from autopeft.objective.quantity import Known
from autopeft.oneshot.proposer import Problem
from autopeft.oneshot.registry import PROPOSERS, make_proposer
from autopeft.space import SearchSpace
from autopeft.study.suggest import suggest
from tests.contracts.curves import OBJECTIVES
from tests.contracts.method import assert_same, fingerprint

SMALL: Mapping[str, Mapping[str, Any]] = {
    "pruning": {"epochs": 1},
    "sensitivity": {"num_samples": 16},
    "switches": {"epochs": 1},
    "supernet": {"epochs": 1, "n_eval": 16, "population": 4, "generations": 1},
}
"""Options with which a search takes seconds, where it has any."""

SPACE = SearchSpace(
    layers={"groups": 2},
    place=[
        {"method": "lora", "r": {"choice": [0, 2, 8]}, "learning_rate": {"float": [1e-3, 4e-3]}},
        {"method": "adapter", "size": {"int": [0, 16]}},
        {"method": "bitfit", "where": {"subset": "groups"}},
        {"method": "compacter", "size": 4, "where": {"subset": "groups"}},
        {"method": "sparse", "r": {"choice": [0, 1]}, "select": {"choice": ["random", "fisher"]}},
    ],
    train={"learning_rate": {"float": [1e-4, 1e-2], "log": True}, "batch_size": 16},
    backbone={"dtype": "float32"},
)
MOST = 40_000


def problem(trainer, limits=None, space=SPACE):
    shape = trainer._backbone(PeftConfig.of(backbone={"dtype": "float32"})).shape
    bound = space.on(shape, trained_elements)

    def params(config):
        return float(count(config, shape).trainable)

    return Problem(bound, OBJECTIVES, {"trainable_params": Known(params)}, dict(limits or {}))


def begun(name, trainer, asked, folder, seed=0, reached=0.0):
    document = {"type": name, **SMALL.get(name, {})}
    order = Order((2.0,), seed, str(folder), reached=reached, proposer=document)
    return make_proposer(document).propose(asked, trainer, 5, order)


def told(*order, **more):
    return [*begun(*order, **more)]


def check_proposes_points_within_limits(name, trainer, folder):
    asked = problem(trainer, {"trainable_params": MOST})
    *reports, proposals = told(name, trainer, asked, folder)
    assert all(isinstance(report, Report) and report.member == 5 for report in reports)
    assert isinstance(proposals, Proposals)
    assert proposals.member == 5
    configs = [asked.space.resolve(point) for point in proposals.points]
    assert configs
    assert len({config.key for config in configs}) == len(configs)
    cost = asked.known["trainable_params"].value
    assert all(0 < cost(config) <= MOST for config in configs)
    dimensions = asked.space.dimensions
    for point in proposals.points:
        trial = optuna.trial.FixedTrial(asked.space.filled(point))
        assert {n: suggest(trial, dimensions[n]) for n in point} == point


@cache
def usual(name, trainer):
    """What is told with the first seed."""
    with TemporaryDirectory() as folder:
        return told(name, trainer, problem(trainer), folder)


def check_the_seed_decides(name, trainer, folder):
    assert usual(name, trainer)[-1] != told(name, trainer, problem(trainer), folder, seed=1)[-1]


def check_goes_on_from_a_rung(name, trainer, folder):
    """Who is interrupted after each report tells what he would have told."""
    asked, reached = problem(trainer), 0.0
    whole = plain(usual(name, trainer))
    for report in whole[:-1]:
        search = begun(name, trainer, asked, folder, reached=reached)
        assert plain([next(search)]) == [report]
        search.close()
        reached = report.fidelity
    assert told(name, trainer, asked, folder, reached=reached) == whole[-1:]


def check_leaves_the_backbone(name, trainer, folder):
    asked = problem(trainer)
    model = trainer._backbone(asked.corner(1.0).config).model
    before = fingerprint(model)
    told(name, trainer, asked, folder)
    assert_same(before, fingerprint(model))
    assert all(weight.grad is None for weight in model.parameters())


def plain(notices):
    """Without what takes time."""
    return [
        replace(n, metrics={k: v for k, v in n.metrics.items() if "seconds" not in k})
        if isinstance(n, Report)
        else n
        for n in notices
    ]


CHECKS = (
    check_proposes_points_within_limits,
    check_the_seed_decides,
    check_goes_on_from_a_rung,
    check_leaves_the_backbone,
)
NAMES = tuple(PROPOSERS.own)
