"""Evaluators whose trials follow tabulated curves; nothing here is slow to import."""

import math
import time
from pathlib import Path

from autopeft.core.report import Failure, Proposals, Report
from autopeft.core.size import size_of
from autopeft.objective.objective import Objective

OBJECTIVES = (
    Objective("accuracy", "maximize"),
    Objective("trainable_params", "minimize", known=True, scale="log", reference=1e4),
)


def params(config):
    return 10 * sum(len(p.layers) * size_of(p) for p in config.placements)


PAUSED = "paused"


def paused_at(order):
    """Where a member that pauses leaves how far it is."""
    return Path(order.folder) / PAUSED


class Curves:
    """Trains whoever is furthest behind to the next rung; accuracy is a formula.

    `broken` fails every member with one of the largest adapters.
    """

    def __init__(self, broken=False):
        self.broken = broken
        self.members, self.orders = {}, {}

    def join(self, member, config, order):
        assert member not in self.members
        if order.reached and paused_at(order).exists():  # not of one killed at its last rung
            assert float(paused_at(order).read_text()) >= order.reached
        self.members[member] = config, [*order.ahead]
        self.orders[member] = order

    def leave(self, member):
        self.members.pop(member, None)

    def advance(self):
        rung = min(rungs[0] for _, rungs in self.members.values())
        behind = [m for m, (_, rungs) in self.members.items() if rungs[0] == rung]
        return [self.reach(member, rung) for member in behind]

    def reach(self, member, rung):
        config, rungs = self.members[member]
        if self.broken and any(dict(p.options).get("size") == 16 for p in config.placements):
            self.leave(member)
            return Failure(member, "ValueError: adapters are out of stock")
        rungs.remove(rung)
        if not rungs:
            self.leave(member)
            paused_at(self.orders[member]).unlink(missing_ok=True)
        elif self.orders[member].folder:
            kept = paused_at(self.orders[member])
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(str(rung))
        rate = dict(config.train).get("learning_rate", 1e-3)
        accuracy = 1 - math.exp(-rung) / (1 + params(config)) - (math.log10(rate) + 3) ** 2
        metrics = {"accuracy": accuracy, "validation_loss": 1 - accuracy}
        return Report(int(10 * rung), rung, metrics, member)


class Searching(Curves):
    """Knows what one-shot searches propose, after a report."""

    def reach(self, member, rung):
        order = self.orders[member]
        if order.proposer is None:
            return super().reach(member, rung)
        if order.reached or rung > order.rungs[0]:
            self.leave(member)
            return Proposals(member, tuple(order.proposer["points"]))
        self.members[member][1].remove(rung)
        return Report(1, rung, {"train_loss": 1.0}, member)


class BrokenCurves(Curves):
    def __init__(self):
        super().__init__(broken=True)


class Hopeless(Curves):
    """Its data lie elsewhere."""

    def advance(self):
        members, self.members = [*self.members], {}
        return [Failure(member, "ValueError: data/train.csv") for member in members]


class Stumbling(Curves):
    """Its third step takes everyone down; what is left of them may leave."""

    def __init__(self):
        super().__init__()
        self.steps = 0

    def advance(self):
        self.steps += 1
        if self.steps == 3:
            return Failure.of_all(self.members, "MemoryError: out of memory")
        return super().advance()


class Slow(Curves):
    """Takes its time, so that something can happen meanwhile."""

    def advance(self):
        time.sleep(0.15)
        return super().advance()


class SlowForEach(Curves):
    """Takes its time for every member, so that packs take as long as single trials."""

    def advance(self):
        time.sleep(0.15 * len(self.members))
        return super().advance()
