from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from autopeft.core.config import PeftConfig
from autopeft.exporter import EXPORTERS, Trained
from autopeft.exporter.exporter import Exporter, Obstacle
from autopeft.exporter.hf_peft import TRANSLATIONS, HFPeft
from autopeft.exporter.merged import Merged
from autopeft.exporter.native import Native
from tests.contracts.exporter import (
    CHECKS,
    READERS,
    SLOW,
    Check,
    carries_a_card,
    leaves_the_backbone,
    reads_back_equal,
    refuses_by_name,
    refuses_other_tensors,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(
    ("format", "architecture"),
    [(f, a) for f in sorted(EXPORTERS) for a in ("bert", "llama", "gpt2") if f not in SLOW]
    + [(f, "bert") for f in SLOW],
)
def test_exporter_keeps_its_promises(
    format: str, architecture: str, check: Check, tmp_path: Path
) -> None:
    check(format, architecture, tmp_path)


UNKNOWN = r"\.(adapter|prefix)\."


class DropsAdapters(HFPeft):
    """Accepts what it cannot write."""

    def obstacles(self, trained: Trained) -> tuple[Obstacle, ...]:
        return ()

    def write(self, trained: Trained, folder: Path) -> None:
        methods = frozenset().union(*(kind.methods for kind in TRANSLATIONS))
        known = [p for p in trained.config.placements if p.method in methods]
        state = {name: t for name, t in trained.state.items() if not re.search(UNKNOWN, name)}
        super().write(Trained(trained.backbone, PeftConfig.of(known), state), folder)


class RefusesAll(Native):
    def obstacles(self, trained: Trained) -> tuple[Obstacle, ...]:
        return tuple(Obstacle(p, "is not liked") for p in trained.config.placements) or (
            Obstacle(None, "is not liked"),
        )


class BlamesTheWrongOne(Merged):
    def obstacles(self, trained: Trained) -> tuple[Obstacle, ...]:
        return tuple(Obstacle(None, o.reason) for o in super().obstacles(trained))


class SpoilsTheBackbone(Native):
    def write(self, trained: Trained, folder: Path) -> None:
        super().write(trained, folder)
        next(trained.model.parameters()).data += 1


class TakesAnyTensors(Native):
    def write(self, trained: Trained, folder: Path) -> None:
        torch.save(dict(trained.state), folder / "state.pt")


class SaysNothing(Native):
    def usage(self, trained: Trained) -> str:
        return ""


@pytest.mark.parametrize(
    ("broken", "reader", "check"),
    [
        (DropsAdapters, "peft", reads_back_equal),
        (RefusesAll, "native", reads_back_equal),
        (BlamesTheWrongOne, "merged", refuses_by_name),
        (SpoilsTheBackbone, "native", leaves_the_backbone),
        (TakesAnyTensors, "native", refuses_other_tensors),
        (SaysNothing, "native", carries_a_card),
    ],
)
def test_kit_fails_on_a_broken_exporter(
    broken: Callable[[], Exporter],
    reader: str,
    check: Check,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(EXPORTERS, "broken", broken())  # type: ignore[misc]
    monkeypatch.setitem(READERS, "broken", READERS[reader])
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check("broken", "bert", tmp_path)


def test_every_format_has_a_reader() -> None:
    assert READERS.keys() == EXPORTERS.keys()
