from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor

from autopeft.model.head import OneLabel
from tests.contracts import task as kit


@pytest.fixture(scope="module", params=kit.CASES)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> kit.Bench:
    return kit.Bench(request.param, tmp_path_factory.mktemp("task"))


@pytest.mark.parametrize("check", kit.CHECKS, ids=lambda check: check.__name__)
def test_contract(bench: kit.Bench, check: kit.Check, tmp_path: Path) -> None:
    check(bench, tmp_path)


def test_every_type_has_a_case() -> None:
    assert kit.covers()


def test_the_kit_sees_a_loss_that_hangs_on_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, right = kit.Bench("text-classification", tmp_path), OneLabel.losses

    def unfair(self: OneLabel, outputs: Tensor, targets: Tensor, smoothing: float = 0) -> Tensor:
        return right(self, outputs, targets, smoothing) / len(targets)

    monkeypatch.setattr(OneLabel, "losses", unfair)
    with pytest.raises(AssertionError):
        kit.micro_batches_make_a_batch(bench, tmp_path)
