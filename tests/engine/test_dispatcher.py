"""Who trains and who waits, and what is recorded of them."""

import pytest

from autopeft.core.config import PeftConfig
from autopeft.core.errors import StudyError
from autopeft.core.report import Failure, Report
from autopeft.engine.dispatcher import Dispatcher
from autopeft.engine.inline import Inline
from autopeft.engine.room import CONTEXT, MARGIN, MIXED, Need, Room
from tests.contracts import engine as kit
from tests.contracts.curves import Curves, params

BACKBONE = 1000


def need(config):
    """The largest configurations of the kit's space take 97 bytes."""
    return Need(BACKBONE, 1 + params(config) // 10)


def room(members_bytes, members=16):
    """Room for a backbone and so many bytes of members."""
    return Room(members, (BACKBONE + MIXED * (members_bytes + 0.5) + CONTEXT) / MARGIN, need=need)


class Bounded(Curves):
    """Runs out of memory where members exceed what there is."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit
        self.sizes = []

    def advance(self):
        used = [need(config).member for config, _ in self.members.values()]
        self.sizes.append(len(used))
        if len(used) > 1 and sum(used) > self.limit:
            return Failure.of_all(self.members, f"MemoryError: {sum(used)} of {self.limit}")
        return super().advance()


@pytest.fixture
def study(tmp_path):
    with kit.make_study(tmp_path, n_trials=12) as study:
        yield study


def dispatcher_of(study, room, n_workers=1):
    return Dispatcher(study, kit.make_halving(), room, lambda _: None, n_workers)


@pytest.mark.parametrize("members_bytes", [1, 50, 150, 300])
def test_members_never_exceed_the_memory(members_bytes, study):
    evaluator = Bounded(members_bytes)
    Inline(room(members_bytes)).run(study, lambda: evaluator, kit.make_halving())
    trials = study.trials()
    assert not [t.error for t in trials if t.state == "failed"]
    assert sum(t.state in {"complete", "stopped"} for t in trials) == 12
    assert (max(evaluator.sizes) > 2) == (members_bytes >= 150)


def test_the_kit_notices_members_without_room(study):
    Inline(Room(members=16)).run(study, lambda: Bounded(20), kit.make_halving())
    assert any("MemoryError" in (t.error or "") for t in study.trials())


def test_one_that_does_not_fit_waits_and_is_next(study):
    dispatcher = dispatcher_of(study, room(2, members=3))
    assert [t.number for t in dispatcher.refill("a")] == [0]
    (waiting,) = (t.number for t in study.trials() if t.state == "running" and t.number > 0)
    assert dispatcher.refill("a") == []
    assert dispatcher.record("a", [Failure(0, "gone")]) == [0]
    assert [t.number for t in dispatcher.refill("a")] == [waiting]


def test_no_more_members_than_allowed(study):
    dispatcher = dispatcher_of(study, Room(members=3))
    assert len(dispatcher.refill("a")) == 3
    assert dispatcher.refill("a") == []
    first, *_ = dispatcher.pack("a")
    dispatcher.record("a", [Failure(first, "gone")])
    assert len(dispatcher.refill("a")) == 1


def test_workers_divide_the_trials_that_are_left(study):
    dispatcher = dispatcher_of(study, Room(members=16), n_workers=3)
    assert [len(dispatcher.refill(worker)) for worker in "abcd"] == [4, 4, 4, 0]
    dispatcher.lost("a")
    assert [len(dispatcher.refill(worker)) for worker in "ab"] == [4, 0]  # the lost ones again
    assert not dispatcher.is_over


def test_each_member_is_judged_by_itself(study):
    dispatcher = dispatcher_of(study, Room(members=4))
    trials = dispatcher.refill("a")
    metrics = {"accuracy": 0.5, "validation_loss": 0.5}
    rungs = [Report(10, 1.0, metrics, t.number) for t in trials[:3]]
    last = Report(30, 3.0, metrics, trials[0].number)
    unknown = Report(30, 3.0, metrics, 999)
    assert trials[0].number in dispatcher.record("a", [*rungs, unknown, last, last])
    states = {t.number: t.state for t in study.trials()}
    assert states[trials[0].number] == "complete"
    assert states[trials[3].number] == "running"
    dispatcher.lost("a")
    assert not dispatcher.pack("a")
    assert not any(t.state == "running" for t in study.trials())


def test_an_evaluator_that_reports_nothing_does_not_hang_a_run(study):
    class Silent(Curves):
        def advance(self):
            return []

    with pytest.raises(StudyError, match="failed alike: the evaluator reports nothing"):
        Inline().run(study, Silent, kit.make_halving())


def test_a_share_is_what_a_configuration_takes():
    sized = Room(memory=80e9, need=lambda config: Need(0, dict(config.train)["bytes"]))
    expected = {10**9: 0.05, 5 * 10**9: 0.1, 36 * 10**9: 0.5, 45 * 10**9: 1.0, 10**12: 1.0}
    assert {
        size: sized.share_for(PeftConfig.of(train={"bytes": size})) for size in expected
    } == expected
    assert Room().share_for(PeftConfig()) == 1.0
