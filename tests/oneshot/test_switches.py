import numpy as np
import pytest
import torch

from autopeft.core.order import Order
from autopeft.oneshot.greedy import filled
from autopeft.oneshot.registry import make_proposer
from autopeft.oneshot.switches import Switches
from autopeft.space import SearchSpace
from tests.contracts import proposer as kit

PAPER = SearchSpace.load("s3delta")


@pytest.fixture
def lent(trainer):
    with trainer.lend(kit.problem(trainer).corner(1.0).config) as lent:
        yield lent


def moved(problem, lent, seed=0, **options):
    """The largest configuration with switches, somewhere in its training."""
    switched = Switches(**options).switched(problem, lent, 0)
    generator = torch.manual_seed(seed)
    with torch.no_grad():
        for group in switched.groups.values():
            for weight in group:
                weight += 0.05 * torch.randn(weight.shape, generator=generator)
        switched._logits += torch.randn(switched._logits.shape, generator=generator)
    return switched


def loss(lent, member, rows):
    with lent.carrying(member), torch.no_grad():
        outputs, targets = lent.passes.outputs(lent.validation, rows, [len(rows)])
        return lent.passes.criterion.losses(outputs, targets).double().mean()


@pytest.mark.parametrize("limits", [{}, {"trainable_params": kit.MOST}])
def test_the_expected_elements_are_the_budget(trainer, lent, limits):
    problem = kit.problem(trainer, limits)
    switched = moved(problem, lent, share=0.5)
    trained = {id(w): w.numel() for s in switched._drawn.sites for w in s.weights.values()}
    whole = sum(trained.values())
    expected = (switched._numel * switched.shifted.detach().sigmoid()).sum().item()
    assert switched._numel.sum() == whole
    assert expected == pytest.approx(min(whole / 2, kit.MOST if limits else whole), rel=1e-5)


def test_open_switches_change_nothing_and_closed_ones_all(trainer, lent):
    problem = kit.problem(trainer)
    switched, rows = moved(problem, lent), torch.arange(24)
    whole, start = switched._drawn, Switches().switched(problem, lent, 0)._drawn
    opened = torch.ones(len(whole.sites))
    for saved, of in zip(start.saved.values(), whole.saved.values(), strict=True):
        saved.copy.data.copy_(of.copy)
    assert torch.equal(loss(lent, switched.member(opened), rows), loss(lent, whole, rows))
    closed = loss(lent, switched.member(0 * opened), rows)
    assert closed == pytest.approx(loss(lent, start, rows), abs=1e-6)
    assert closed != pytest.approx(loss(lent, whole, rows), abs=1e-3)


def test_logits_learn_from_validation_examples_alone(trainer, lent):
    """By the gradient of the loss with the shift held, and the tensors by none of it."""
    switched, rows = moved(kit.problem(trainer), lent), torch.arange(24)
    opened = switched.draw(np.random.default_rng(0), 1.0)
    switched.judge(lent, opened, rows)
    weights = [w for site in switched._drawn.sites for w in site.weights.values()]
    assert all(weight.grad is None for weight in weights)
    gradient = switched._logits.grad
    at = int(gradient.abs().argmax())
    for size in (0.5, -0.5):
        step = torch.zeros(len(gradient))
        step[at] = size
        there = torch.logit(opened.detach().double()) + step
        ahead = loss(lent, switched.member(there.sigmoid().float()), rows)
        back = loss(lent, switched.member((there - 2 * step).sigmoid().float()), rows)
        slope = (ahead - back) / (2 * size)
        assert slope.item() == pytest.approx(gradient[at].item(), rel=0.05)


def test_open_sites_come_first(trainer, lent):
    problem = kit.problem(trainer, space=PAPER)
    switched = moved(problem, lent)
    with torch.no_grad():
        switched._logits.fill_(-1)
        keys = [site.placed.key for site in switched._drawn.sites]
        switched._logits[keys.index("layers.3.lora.self.v")] = 2
    first = next(filled(problem, switched.worth(lent))).config
    assert [(p["targets"], p.layers) for p in first.placements] == [(("v",), (3,))]


@pytest.mark.parametrize("share", [0.1, 0.7])
def test_the_paper_s_space_is_filled(trainer, tmp_path, share):
    """Never over a budget, and no site that is left out fits in: they have at least 384 elements.

    That is at least 99.3 % of the larger one.
    """
    whole = kit.problem(trainer, space=PAPER)
    most = share * whole.params(whole.corner(1.0).config)
    problem = kit.problem(trainer, {"trainable_params": most}, PAPER)
    search = make_proposer({"type": "switches", "epochs": 0.5})
    *_, told = search.propose(problem, trainer, 0, Order((1.0,), 0, str(tmp_path)))
    sizes = [problem.params(problem.space.resolve(point)) for point in told.points]
    assert most - 384 < sizes[0] <= most
    assert share < 0.7 or sizes[0] > 0.993 * most
    assert sizes == sorted(sizes, reverse=True)
