"""Engines keep one contract and take the same decisions."""

import pytest
import ray

from autopeft.core.report import Report
from autopeft.engine.engine import Engine
from autopeft.engine.ray import RayEngine
from autopeft.engine.room import Room
from tests.contracts import engine as kit
from tests.contracts.curves import Curves


@pytest.fixture(autouse=True, scope="module")
def _connected(cluster):
    """Runs leave nothing behind in a cluster that their process stays connected to."""
    ray.init(address=cluster.address, log_to_driver=False)
    yield
    actors = ray._private.state.actors().values()
    ray.shutdown()
    assert {actor["State"] for actor in actors} == {"DEAD"}


ORDERS = [
    (name, check) for name in ("inline", "inline-packed", "ray-packed") for check in kit.CHECKS
]
ORDERS += [("ray", kit.check_failures_are_recorded), ("ray", kit.check_continues)]
"""Packs of one and packs of several run through the same code of Ray."""


@pytest.mark.parametrize(("name", "check"), ORDERS)
def test_contract(name, check, tmp_path):
    check(kit.ENGINES[name](), tmp_path)


def test_trials_wait_for_those_of_another_worker(tmp_path):
    engine = RayEngine(cpu=0.5, concurrency=2, folder=str(tmp_path), room=Room(members=2))
    kit.check_trials_wait_for_their_group(engine, tmp_path)


@pytest.mark.parametrize(("sampler", "pack"), [("tpe", "-packed"), ("bayes", "")])
def test_one_worker_takes_the_same_decisions_everywhere(sampler, pack, tmp_path):
    outcomes = []
    for name in (f"inline{pack}", f"ray{pack}"):
        (tmp_path / name).mkdir()
        with kit.make_study(tmp_path / name, sampler=sampler) as study:
            kit.ENGINES[name]().run(study, Curves, kit.make_halving())
            outcomes.append(kit.outcome(study.trials()))
    assert outcomes[0] == outcomes[1]


def test_a_continued_study_takes_the_decisions_of_an_undisturbed_one(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = kit.check_runs_to_the_end(kit.ENGINES["inline"](), tmp_path / "whole")
    assert kit.check_continues(kit.ENGINES["inline"](), tmp_path / "parts") == whole


class Forgetful(Engine):
    """Drops every third report."""

    def run(self, study, make, stopper, watch=lambda _: None):
        evaluator = make()
        while (trial := study.ask()) is not None:
            evaluator.join(trial.number, trial.config, trial.order)
            for i in range(len(trial.order.rungs)):
                (event,) = evaluator.advance()
                if not isinstance(event, Report):
                    raise ValueError(event)
                if (trial.number + i) % 3:
                    study.report(trial, event)
            study.finish(trial)


@pytest.mark.parametrize("check", kit.CHECKS, ids=lambda check: check.__name__)
def test_the_kit_notices_a_broken_engine(check, tmp_path):
    if check is kit.check_continues:
        whole = check(kit.ENGINES["inline"](), tmp_path / ".")
        (tmp_path / "other").mkdir()
        assert check(Forgetful(), tmp_path / "other") != whole
        return
    with pytest.raises((AssertionError, ValueError, FileNotFoundError, MemoryError)):
        check(Forgetful(), tmp_path)
