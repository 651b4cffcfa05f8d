"""Spaces and configurations that references stand for, on a backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from autopeft.api.placements import check_peft_options, methods_in, placements_in
from autopeft.core.catalog import Reference, place
from autopeft.core.config import PeftConfig
from autopeft.core.declaration import GATES
from autopeft.core.errors import StudyError, inside
from autopeft.method.count import trained_elements
from autopeft.method.demands import check_gates, check_methods
from autopeft.model.backbone import Backbone
from autopeft.space.bound import BoundSpace
from autopeft.space.space import SearchSpace


def on_backbone(reference: Reference, backbone: Backbone) -> BoundSpace:
    """The space that a name, path or mapping stands for, on a backbone.

    Raises:
        SpaceError: it means nothing or does not fit; the error names its file.
        AttachError: it has a method that the architecture cannot take.
    """
    space = SearchSpace.load(reference)
    with inside(place("search_spaces", reference)):
        placed = space.to_dict()["place"]
        check_methods(backbone.model, sorted(set(methods_in(placed))))
        for option in GATES:
            if any(placement.get(option) for placement in placements_in(placed)):
                check_gates(backbone.model, option)
        check_peft_options(placed)
        return space.on(backbone.shape, trained_elements)


def configuration(reference: Reference, backbone: Backbone) -> PeftConfig:
    """The fixed configuration that a name, path or mapping stands for, on a backbone.

    Raises:
        AutoPeftError: it leaves a choice, or does not fit.
    """
    bound = on_backbone(reference, backbone)
    with inside(place("search_spaces", reference)):
        if not bound.space.is_configuration:
            raise StudyError("is a space with choices, not a configuration")
        return bound.resolve({})


def baselines_of(references: Sequence[Reference], backbone: Backbone) -> dict[str, PeftConfig]:
    """The baselines of a study by name.

    Raises:
        AutoPeftError: one is none, or two have the same name.
    """
    by_name: dict[str, PeftConfig] = {}
    with inside("search.baselines"):
        for reference in references:
            config = configuration(reference, backbone)
            name = _name(reference)
            if name in by_name:
                raise StudyError(f"two are called {name!r}; names tell them apart")
            by_name[name] = config
    return by_name


def _name(reference: Reference) -> str:
    if isinstance(reference, Mapping):
        return str(reference.get("name", "inline"))
    return Path(reference).stem
