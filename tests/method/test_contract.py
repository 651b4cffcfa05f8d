from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from autopeft.core.methods import DECLARATIONS
from autopeft.method.adapter import AdapterMethod
from autopeft.method.lora import LoraMethod
from autopeft.method.method import Base, Fold, Site, Weight, Weights
from autopeft.method.prefix import PrefixMethod
from autopeft.method.registry import METHODS
from autopeft.method.select import SparseTuningMethod
from tests.contracts.method import (
    CHECKS,
    VARIANTS,
    counts_what_it_trains,
    is_gated,
    keeps_invalid_numbers_to_itself,
    leaves_without_a_trace,
    merges_or_says_why,
    packs_as_if_alone,
    round_trips,
    starts_as_promised,
    trains_all_and_only_its_own,
)

Check = Callable[[str, str], None]
ARCHITECTURES = ("bert", "gpt2", "gpt_neox", "bart")


CASES = [(method, name) for method in sorted(METHODS) for name in ARCHITECTURES] + [
    (variant, name)
    for variant in sorted(VARIANTS)
    for name in (("bert", "vit") if is_gated(variant) else ARCHITECTURES[:2])
]
NOT_OF_ATTENTIONS = (keeps_invalid_numbers_to_itself, leaves_without_a_trace)
"""Checks of packs for which it is enough to have one stack and two."""


@pytest.mark.parametrize(
    ("check", "method", "architecture"),
    [
        pytest.param(check, *case, id="-".join((*case, check.__name__)))
        for case in CASES
        for check in CHECKS
        if check not in NOT_OF_ATTENTIONS or case[1] in ("bert", "bart")
    ],
)
def test_method_keeps_its_promises(check: Check, method: str, architecture: str) -> None:
    check(method, architecture)


class StartsElsewhere(LoraMethod):
    def sites(self, layer):
        return tuple(
            replace(site, weights=tuple(replace(w, draw="normal", scale=1.0) for w in site.weights))
            for site in super().sites(layer)
        )


class ForgetsScaling(LoraMethod):
    def fold(self, site: Site, weights: Weights, base: Base) -> Fold:
        return Fold(weight=weights["B"] @ weights["A"])


class TrainsInVain(LoraMethod):
    def sites(self, layer):
        spare = Weight("spare", (3,))
        return tuple(replace(s, weights=(*s.weights, spare)) for s in super().sites(layer))


@dataclass(frozen=True)
class Understated(Weight):
    @property
    def elements(self) -> int:
        return 1


class Undercounts(LoraMethod):
    def sites(self, layer):
        return tuple(
            replace(site, weights=tuple(Understated(**vars(w)) for w in site.weights))
            for site in super().sites(layer)
        )


class Overstates(LoraMethod):
    def sites(self, layer):
        return tuple(replace(s, changes={**s.changes, "o": 1}) for s in super().sites(layer))


@dataclass(frozen=True)
class Forgotten(Weight):
    @property
    def is_kept(self) -> bool:
        return self.trained


class ForgetsPlaces(SparseTuningMethod):
    example = {**SparseTuningMethod.example, "select": "fisher"}

    def weights(self, linear):
        return tuple(Forgotten(**vars(weight)) for weight in super().weights(linear))


class NeverMerges(LoraMethod):
    merges = False


class StartsAtIdentity(PrefixMethod):
    identity_at_start = True


class HidesState(LoraMethod):
    made = 0

    def part(self, site: Site, weights: Weights):
        HidesState.made += 1
        hidden = {**weights, "B": weights["B"] + 0.1 * HidesState.made}
        return super().part(site, hidden)


class CutsGradient(LoraMethod):
    def part(self, site: Site, weights: Weights):
        frozen = {name: weight.detach() for name, weight in weights.items()}
        return super().part(site, frozen)


class OverlooksOptions(AdapterMethod):
    def __eq__(self, other: object) -> bool:
        return isinstance(other, OverlooksOptions) and self.options.size == other.options.size

    def __hash__(self) -> int:
        return self.options.size


class Gossips(LoraMethod):
    heard: list[Tensor] = []

    def part(self, site: Site, weights: Weights):
        known = super().part(site, weights)

        def change(x: Tensor, training: bool) -> Tensor:
            told = self.heard.pop() if self.heard else torch.zeros(())
            delta = known.change(x, training)
            self.heard.append(0 * delta.detach().sum())
            return delta + told

        return replace(known, change=change)


class CountsRows(LoraMethod):
    def part(self, site: Site, weights: Weights):
        known = super().part(site, weights)
        seen: list[int] = []

        def change(x: Tensor, training: bool) -> Tensor:
            seen.append(len(x))
            return known.change(x, training) * len(seen)

        return replace(known, change=change)


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (StartsElsewhere, starts_as_promised),
        (StartsAtIdentity, starts_as_promised),
        (ForgetsScaling, merges_or_says_why),
        (TrainsInVain, trains_all_and_only_its_own),
        (Undercounts, counts_what_it_trains),
        (Overstates, counts_what_it_trains),
        (HidesState, round_trips),
        (ForgetsPlaces, round_trips),
        (CutsGradient, trains_all_and_only_its_own),
        (HidesState, packs_as_if_alone),
        (OverlooksOptions, packs_as_if_alone),
        (CountsRows, packs_as_if_alone),
        (Gossips, keeps_invalid_numbers_to_itself),
    ],
)
def test_kit_fails_on_a_broken_method(broken, check: Check, monkeypatch) -> None:
    intact = next(name for name, kind in METHODS.items() if issubclass(broken, kind))
    monkeypatch.setitem(DECLARATIONS.own, "broken", DECLARATIONS[intact])
    monkeypatch.setitem(METHODS.own, "broken", broken)
    with pytest.raises((AssertionError, RuntimeError)):
        check("broken", "bert")


def test_kit_accepts_a_method_that_says_it_does_not_merge(monkeypatch) -> None:
    monkeypatch.setitem(DECLARATIONS.own, "unmerged", DECLARATIONS["lora"])
    monkeypatch.setitem(METHODS.own, "unmerged", NeverMerges)
    merges_or_says_why("unmerged", "bert")
