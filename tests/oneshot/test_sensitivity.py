import pytest
import torch

from autopeft.oneshot.sensitivity import _promised
from autopeft.space import SearchSpace
from tests.contracts import proposer as kit

SPACE = SearchSpace(
    place=[
        {"method": "lora", "r": 4, "learning_rate": 2e-3},
        {"method": "compacter", "size": 8, "learning_rate": 5e-4},
        {"method": "bitfit"},
    ],
    train={"learning_rate": 1e-3, "batch_size": 16},
    backbone={"dtype": "float32"},
)


def test_it_is_how_much_the_loss_falls(trainer):
    """By a small step against the sign of every element, of which halves that are alike agree."""
    config = kit.problem(trainer, space=SPACE).space.resolve({})
    with trainer.lend(config) as lent:
        rows = torch.arange(24)

        def loss():
            outputs, targets = lent.passes.outputs(lent.train, rows, [len(rows)])
            return lent.passes.criterion.losses(outputs, targets).mean()

        worth = _promised(lent, lent.drawn(config, 0), {}, rows.repeat_interleave(2))
        assert {*worth} == {*range(6)}
        assert min(worth.values()) > 0
        member = lent.drawn(config, 0)
        tuned = {w: r for r, group in member.groups.items() for w in group}
        tuned = {
            w: r for w, r in tuned.items() if all(w is not s.copy for s in member.saved.values())
        }
        with lent.carrying(member):
            before = loss()
            before.backward()
            small = 1e-2
            with torch.no_grad():
                for weight, rate in tuned.items():
                    weight -= small * rate * weight.grad.sign()
                fallen = (before - loss()).item() / small
    assert sum(worth.values()) == pytest.approx(fallen, rel=0.02)


def test_what_examples_only_disagree_in_is_worth_nothing(trainer):
    """Over different halves it is less than over one that is there twice."""
    config = kit.problem(trainer, space=SPACE).space.resolve({})
    with trainer.lend(config) as lent:
        rows = torch.arange(48)
        apart = _promised(lent, lent.drawn(config, 0), {}, rows)
        twice = _promised(lent, lent.drawn(config, 0), {}, rows[:24].repeat_interleave(2))
    assert sum(apart.values()) < 0.9 * sum(twice.values())
