import pytest
import torch

from autopeft.oneshot.pruning import _kept, credited
from autopeft.oneshot.shared import shared_name, trained_weights
from autopeft.space import SearchSpace
from tests.contracts import proposer as kit

SPACE = SearchSpace(
    layers={"groups": 2},
    place=[
        {"method": "lora", "r": {"choice": [0, 2, 8]}, "learning_rate": 2e-3},
        {"method": "compacter", "size": 8},
        {"method": "bitfit", "where": {"subset": "groups"}},
    ],
    train={"learning_rate": 1e-3},
    backbone={"dtype": "float32"},
)
RANK = "0.lora.r@g1"


def test_all_credit_is_how_much_the_loss_fell(trainer):
    """What layers share counts once; without the head, which does not move here."""
    config = kit.problem(trainer, space=SPACE).corner(1.0).config
    rows = torch.arange(24)
    with trainer.lend(config) as lent:
        member = lent.drawn(config, 0)
        weights = {id(w): w for site in member.sites for w in site.weights.values()}.values()

        def fallen():
            with lent.carrying(member):
                outputs, targets = lent.passes.outputs(lent.validation, rows, [len(rows)])
            return lent.passes.criterion.losses(outputs, targets).mean()

        began = {name: tensor.clone() for name, tensor in member.state_dict().items()}
        first = fallen()
        for _ in range(20):
            gradients = torch.autograd.grad(fallen(), [*weights])
            with torch.no_grad():
                for weight, gradient in zip(weights, gradients, strict=True):
                    weight -= 1e-3 * gradient.sign()
        credit = credited(lent, member, began, rows)
        last, seen = fallen(), set()
        kept = sum(_kept(credit, site, seen) for site in member.sites)
    assert first - last > 0.1
    assert kept == pytest.approx((first - last).item(), rel=0.01)


def test_a_smaller_size_keeps_the_best_together(trainer):
    """A rank is a row of A with its column of B."""
    asked = kit.problem(trainer, space=SPACE)
    largest = asked.corner(1.0)
    small = asked.space.resolve({**largest.point, RANK: 2})
    a, b = torch.zeros(8, 384), torch.zeros(384, 8)
    a[[1, 4, 6], 0] = torch.tensor([5.0, 3.0, -1.0])
    b[0, [1, 4, 6]] = torch.tensor([-4.0, 0.0, 3.0])
    with trainer.lend(largest.config) as lent:
        one, other = (
            next(s for s in lent.drawn(c, 0).sites if s.placed.key == "layers.0.lora.self.q")
            for c in (largest.config, small)
        )
    credit = {shared_name(one, w): t for w, t in zip(trained_weights(one), (a, b), strict=True)}
    assert _kept(credit, one, set()) == pytest.approx(6.0)
    assert _kept(credit, other, set()) == pytest.approx(3.0 + 2.0)
