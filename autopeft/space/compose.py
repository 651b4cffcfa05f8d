"""`Composer`: from the decisions of a pass over a space to the configuration that they make."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import Any

from autopeft.core.config import PeftConfig
from autopeft.core.errors import SpaceError
from autopeft.core.methods import DECLARATIONS
from autopeft.space.budget import Cost, check_budget, fill, is_fill
from autopeft.space.decisions import tuned_dimension
from autopeft.space.domain import Subset, Tree, nodes
from autopeft.space.form import Form
from autopeft.space.ground import Ground, Here
from autopeft.space.remembered import Remembered
from autopeft.space.walk import Raw, Walk


class Composer:
    """Makes configurations of a space on a backbone.

    Args:
        form: the space.
        ground: the backbone.
        cost: trainable elements of one placement on one layer; sizes of `fill` need it.

    Raises:
        SpaceError: a budget that does not go with the sizes, or a configuration without choices
            all of whose placements find nothing to train.
    """

    def __init__(self, form: Form, ground: Ground, cost: Cost | None) -> None:
        self._form, self._ground, self._cost = form, ground, cost
        self._heres = {pattern: ground.heres(pattern) for pattern in ground.groups}
        self._remembered: dict[tuple[Here, int], Remembered[list[Raw]]] = defaultdict(Remembered)
        self._has_fill = _mentions_fill(form.place)
        check_budget(self._has_fill, form.budget)
        if self._has_fill and cost is not None and not ground.shape.parameters:
            raise SpaceError("sizes of fill need a backbone with its parameters", "budget")
        if form.is_configuration:
            self._check_idle()

    def __call__(self, walk: Walk) -> PeftConfig:
        """The configuration at the end of a pass."""
        raws, tuned = self._raws(walk)
        if self._has_fill:
            raws = self._filled(raws, tuned, walk)
        return PeftConfig.of(
            (raw.placement for raw in raws),
            walk.value(self._form.train, "train"),
            walk.value(self._form.backbone, "backbone"),
        )

    def _filled(self, raws: list[Raw], tuned: list[int], walk: Walk) -> list[Raw]:
        budget = walk.value(self._form.budget, "budget")
        if self._cost is None:
            raise SpaceError("sizes of fill need a backbone to count on", "budget")
        return fill(raws, tuned, budget, self._ground.shape, self._cost)

    def _raws(self, walk: Walk) -> tuple[list[Raw], list[int]]:
        """All placements with `fill` still open, and the layers that are tuned, ascending."""
        raws: list[Raw] = []
        tuned: list[int] = []
        for here in self._heres[walk.value(self._form.layers.pattern, "layers.pattern")]:
            if self._is_tuned(walk, here.group):
                tuned.append(here.layer)
                for entry in range(len(self._form.place)):
                    put = partial(self._on_layer, here, entry)
                    raws += self._remembered[here, entry](walk, put)
        return raws, sorted(tuned)

    def _is_tuned(self, walk: Walk, group: str) -> bool:
        tuned = self._form.layers.tuned
        if isinstance(tuned, Subset):
            return bool(walk.pick(tuned_dimension(group)))
        return tuned == "all" or group in tuned

    def _on_layer(self, here: Here, entry: int, walk: Walk) -> list[Raw]:
        """What an entry of `place` trains on one layer."""
        raws = walk.placements(self._form.place[entry], str(entry), here)
        return [raw for raw in raws if self._trains(raw)]

    def _trains(self, raw: Raw) -> bool:
        """Whether a placement finds anything to train; BitFit without biases does not."""
        if self._cost is None or is_fill(raw):
            return True
        return self._cost(raw.method, raw.options, self._ground.shape.layers[raw.layer]) > 0

    def _check_idle(self) -> None:
        """Refuses a configuration all of whose placements find nothing to train."""
        walk = Walk(self._ground, lambda dimension: dimension.from_unit(0.0))
        (heres,) = self._heres.values()
        entries = enumerate(self._form.place)
        raws = [r for i, e in entries for here in heres for r in walk.placements(e, str(i), here)]
        if raws and not any(map(self._trains, raws)):
            methods = dict.fromkeys(raw.method for raw in raws)
            raise SpaceError(
                f"{', '.join(methods)} finds nothing to train in this backbone", "place"
            )


def _mentions_fill(place: Any) -> bool:
    entries = (n for n in nodes(place) if isinstance(n, Tree) and n.get("method"))
    sizes = (entry.get(DECLARATIONS[entry["method"]].size_option() or "") for entry in entries)
    return any(node == "fill" for size in sizes for node in nodes(size))
