"""Engines keep one contract and take the same decisions."""

import pytest
import ray

from autopeft.engine.engine import Engine
from tests.contracts import engine as kit


@pytest.fixture(autouse=True, scope="module")
def _one_cluster_for_all():
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.parametrize("name", kit.ENGINES)
@pytest.mark.parametrize("check", kit.CHECKS, ids=lambda check: check.__name__)
def test_contract(name, check, tmp_path):
    check(kit.ENGINES[name](), tmp_path)


@pytest.mark.parametrize("sampler", ["tpe", "bayes"])
def test_one_worker_takes_the_same_decisions_everywhere(sampler, tmp_path):
    outcomes = []
    for name, make in kit.ENGINES.items():
        (tmp_path / name).mkdir()
        with kit.make_study(tmp_path / name, sampler=sampler) as study:
            make().run(study, kit.Curves, kit.make_halving())
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
        evaluate = make()
        while (ticket := study.ask()) is not None:
            for i, report in enumerate(evaluate([ticket.config], ticket.budget)):
                if (ticket.number + i) % 3:
                    study.report(ticket, report)
            study.finish(ticket)


@pytest.mark.parametrize("check", kit.CHECKS, ids=lambda check: check.__name__)
def test_the_kit_notices_a_broken_engine(check, tmp_path):
    if check is kit.check_continues:
        whole = check(kit.ENGINES["inline"](), tmp_path / ".")
        (tmp_path / "other").mkdir()
        assert check(Forgetful(), tmp_path / "other") != whole
        return
    with pytest.raises((AssertionError, ValueError, FileNotFoundError)):
        check(Forgetful(), tmp_path)
