import pytest

from autopeft.core.order import Order
from autopeft.core.report import Failure, Proposals, Report
from autopeft.oneshot.evaluator import Proposing
from tests.contracts import proposer as kit
from tests.contracts.method import assert_same, fingerprint
from tests.minilm import exact

SEARCH = {"type": "supernet", **kit.SMALL["supernet"]}


@pytest.fixture
def proposing(trainer):
    return Proposing(lambda: trainer, lambda: kit.problem(trainer))


def drained(proposing):
    told = []
    while notices := proposing.advance():
        told += notices
    return told


def test_a_search_has_the_backbone_to_itself(proposing):
    """It waits for whoever trains, and who comes after it waits for its end."""
    proposing.join(0, exact([5]), Order((1.0,)))
    proposing.join(1, exact([0]), Order((1.0,), proposer=SEARCH))
    proposing.join(2, exact([4, 5]), Order((1.0,)))
    told = drained(proposing)
    assert [(type(n), n.member) for n in told] == [
        (Report, 0),
        (Report, 1),
        (Proposals, 1),
        (Report, 2),
    ]


def test_who_leaves_during_a_search_lets_others_go_on(proposing, trainer):
    model = trainer._backbone(exact([0])).model
    before = fingerprint(model)
    proposing.join(0, exact([0]), Order((2.0,), proposer=SEARCH))
    proposing.join(1, exact([5]), Order((1.0,)))
    (report,) = proposing.advance()
    assert report.member == 0
    proposing.leave(0)
    assert_same(before, fingerprint(model))
    assert [n.member for n in drained(proposing)] == [1]


def test_a_search_that_fails_fails_alone(proposing):
    nothing = {"type": "sensitivity", "num_samples": 0}
    proposing.join(0, exact([0]), Order((1.0,), proposer=nothing))
    proposing.join(1, exact([5]), Order((1.0,)))
    failed, report = drained(proposing)
    assert isinstance(failed, Failure)
    assert "num_samples" in failed.error
    assert isinstance(report, Report)
