import pytest
import torch

from autopeft.oneshot.pruning import Credited
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


def credited(lent, config):
    return Credited(lent.drawn(config, 0), 1e-3)


def worth_of(lent, of, config):
    worth = of.worth(lent)
    return sum(worth(p)[layer] for p in config.placements for layer in p.layers)


def test_all_credit_is_how_much_the_loss_fell(trainer):
    """Over small steps on one batch; what the layers share counts once."""
    config = kit.problem(trainer, space=SPACE).corner(1.0).config
    with trainer.lend(config) as lent:
        of, rows = credited(lent, config), torch.arange(24)
        weights = [w for w in of.member.sites for w in w.weights.values()]
        for weight in weights:
            weight.data.add_(0.01 * torch.randn(weight.shape, generator=torch.manual_seed(0)))
        of._before = {name: t.detach().clone() for name, t in of._weights.items()}
        losses = []
        with lent.carrying(of.member):
            for _ in range(40):
                outputs, targets = lent.passes.outputs(lent.train, rows, [len(rows)])
                loss = lent.passes.criterion.losses(outputs, targets).mean()
                loss.backward()
                of.settle()
                losses.append(loss.item())
                with torch.no_grad():
                    for weight in {id(w): w for w in weights}.values():
                        weight -= 2e-4 * weight.grad.sign()
                        weight.grad = None
        for group in of.groups.values():
            for weight in group:
                weight.grad = None
        whole = worth_of(lent, of, config)
    assert losses[0] - losses[-1] > 0.01
    assert whole == pytest.approx(losses[0] - losses[-1], rel=0.05)


def test_a_smaller_size_keeps_the_best_together(trainer):
    """A rank is a row of A with its column of B."""
    asked = kit.problem(trainer, space=SPACE)
    largest = asked.corner(1.0)
    small = asked.space.resolve({**largest.point, RANK: 2})
    with trainer.lend(largest.config) as lent:
        of = credited(lent, largest.config)
        (a,) = (c for n, c in of._credit.items() if n.endswith("layers.0.lora.self.q A"))
        (b,) = (c for n, c in of._credit.items() if n.endswith("layers.0.lora.self.q B"))
        a[[1, 4, 6], 0] = torch.tensor([5.0, 3.0, -1.0])
        b[0, [1, 4, 6]] = torch.tensor([-4.0, 0.0, 3.0])
        assert worth_of(lent, of, largest.config) == pytest.approx(6.0)
        assert worth_of(lent, of, small) == pytest.approx(3.0 + 2.0)
