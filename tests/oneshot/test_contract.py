import pytest
import torch

from autopeft.core.report import Proposals, Report
from autopeft.oneshot.proposer import Proposer
from autopeft.oneshot.registry import PROPOSERS
from tests.contracts import proposer as kit


@pytest.mark.parametrize("check", kit.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", kit.NAMES)
def test_contract(name, check, trainer, tmp_path):
    check(name, trainer, tmp_path)


class Stubborn(Proposer):
    """Proposes the largest, whatever seed and limits, begins anew, and leaves a gradient."""

    @property
    def length(self):
        return 0.0

    def propose(self, problem, trainer, member, order):
        yield Report(1, 1.0, {"train_loss": 1.0}, member)
        largest = problem.corner(1.0)
        (weight, *_) = trainer._backbone(largest.config).model.parameters()
        weight.grad = torch.zeros_like(weight)
        yield Proposals(member, (dict(largest.point),))


@pytest.mark.parametrize("check", kit.CHECKS, ids=lambda check: check.__name__)
def test_the_kit_notices_a_broken_search(check, trainer, tmp_path, monkeypatch):
    monkeypatch.setitem(PROPOSERS.own, "stubborn", Stubborn)
    try:
        with pytest.raises(AssertionError):
            check("stubborn", trainer, tmp_path)
    finally:
        for backbone in trainer._backbones.values():
            backbone.model.zero_grad()
