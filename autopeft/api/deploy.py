"""Where the winner of a study will run, and what of a space cannot go there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from autopeft.api.placements import methods_in
from autopeft.core.catalog import Reference
from autopeft.core.config import PeftConfig
from autopeft.core.declaration import GATES
from autopeft.core.errors import StudyError, inside, unknown
from autopeft.core.methods import Peft
from autopeft.core.options import SITES
from autopeft.exporter.adapterhub_parts import LORA_SITES, leaf
from autopeft.exporter.hf_peft import TRANSLATIONS
from autopeft.method.registry import METHODS
from autopeft.model.head import Head
from autopeft.space import SearchSpace

Fit = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]


def _as_it_is(placement: Mapping[str, Any]) -> Mapping[str, Any]:
    return placement


def _ungated(placement: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """A placement unless it may have a gate."""
    return None if any(map(placement.get, GATES)) else placement


@dataclass(frozen=True)
class Target:
    """What loads an exported folder.

    Attributes:
        format: of the folder.
        families: methods that it loads together; any where there are none.
        merges: whether it loads what changes weights, and nothing else.
        once: groups of methods of which it has one in a place.
        fit: of a placement of a space what it loads, whatever is decided; None if nothing.
        trained_heads: whether it loads a head that was trained.
        quantized: whether the backbone of the folder may be.
    """

    format: str
    families: tuple[frozenset[str], ...] = ()
    merges: bool = False
    once: tuple[frozenset[str], ...] = ()
    fit: Fit = _as_it_is
    trained_heads: bool = True
    quantized: bool = True


def _in_one_form(placement: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """A placement unless layers have several options of a type of HF peft."""
    differs = placement["method"] == Peft.method and any(
        isinstance(value, Mapping) and value.get("per") != "space"
        for key, value in placement.items()
        if key not in ("where", "targets", "learning_rate")
    )
    return None if differs else _ungated(placement)


def _by_adapterhub(placement: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """A placement with LoRA where AdapterHub has it, and adapters that all backbones can have."""
    if _ungated(placement) is None:
        return None
    fitting = dict(placement)
    for name in {"targets", "form"} & placement.keys():
        value, choices = placement[name], [placement[name]]
        if isinstance(value, Mapping) and "choice" in value:
            choices = [item for item in value["choice"] if _NOWHERE.isdisjoint(_strings(item))]
            fitting[name] = {**value, "choice": choices}
        if not choices or not _NOWHERE.isdisjoint(_strings(choices)):
            return None
    return fitting


_NOWHERE = {"parallel"} | {role for role in SITES if leaf(role) not in LORA_SITES}
_BOTTLENECKS = frozenset({"adamix", "adapter", "propetl", "sparse-adapter"})
_SERVER = Target("peft", (frozenset({"lora", "moslora"}),), fit=_ungated, trained_heads=False)

TARGETS: Mapping[str, Target] = {
    "native": Target("native"),
    "peft": Target(
        "peft",
        tuple(kind.methods for kind in TRANSLATIONS),
        once=tuple(frozenset({method}) for kind in TRANSLATIONS for method in kind.once),
        fit=_in_one_form,
    ),
    "adapters": Target(
        "adapters",
        (_BOTTLENECKS | {"lora", "moslora"},),
        once=(_BOTTLENECKS,),
        fit=_by_adapterhub,
    ),
    "merged": Target(
        "merged",
        merges=True,
        fit=_ungated,
        quantized=False,
    ),
    "onnx": Target("onnx", quantized=False),
    "vllm": _SERVER,
    "sglang": _SERVER,
    "llama.cpp": _SERVER,
}


@dataclass(frozen=True)
class Deployable:
    """What is left of a space for a target.

    Attributes:
        space: itself where the target loads anything.
        methods: what the target loads; None for all.
        lost: the methods of the space that it does not.
        fit: that of the target.
    """

    space: Reference
    methods: frozenset[str] | None
    lost: tuple[str, ...]
    fit: Fit

    def takes(self, config: PeftConfig) -> bool:
        """Whether a baseline can go there."""
        place, methods = config.to_dict()["place"], self.methods
        return methods is None or all(p["method"] in methods and self.fit(p) for p in place)


def deployable(space: Reference, name: str, head: Head) -> Deployable:
    """A space without the placements that a target does not load.

    Of families that it does not load together the one stays of which the space has most.

    Args:
        space: name, path or mapping.
        name: of the target.
        head: of the task.

    Raises:
        StudyError: an unknown target; one that loads nothing of the space or task.
    """
    if name not in TARGETS:
        raise StudyError(unknown("target", name, TARGETS), "deploy")
    target = TARGETS[name]
    if _is_trained(head) and not target.trained_heads:
        reason = f"{name} loads no trained head, which {head.task} has; merged or onnx hold it"
        raise StudyError(reason, "deploy")
    with inside("space"):
        document = SearchSpace.load(space).to_dict()
    if not target.quantized and {"nf4", "int8"} & {*_strings(document.get("backbone", {}))}:
        raise StudyError(f"{name} takes no quantized backbone, which the space has", "deploy")
    present = Counter(methods_in(document["place"]))
    families = target.families
    if target.merges:
        families = (
            frozenset(name for name in METHODS.own if METHODS[name].merges)
            | {name for name in present if METHODS[name].merges},
        )
    if not families:
        return Deployable(space, None, (), target.fit)
    kept = max(families, key=lambda family: sum(present[method] for method in family))
    loaded = _without(document["place"], kept)
    place = _once(loaded, target)
    if present and not place:
        known = ", ".join(sorted(kept))
        raise StudyError(f"{name} loads nothing of the space, of all methods {known}", "deploy")
    doubles = Counter(methods_in(loaded)) - Counter(methods_in(place))
    lost = ({*present} - kept) | {*doubles}
    return Deployable({**document, "place": place}, kept, tuple(sorted(lost)), target.fit)


def runs_in(format: str, config: PeftConfig, head: Head) -> list[str]:
    """The targets that load the folder of a configuration in a format."""
    methods = {placement.method for placement in config.placements}
    return [
        name
        for name, target in TARGETS.items()
        if target.format == format
        and (target.trained_heads or not _is_trained(head))
        and (not target.families or any(methods <= family for family in target.families))
    ]


def _is_trained(head: Head) -> bool:
    return head.n_labels is not None


def _without(place: list[Any], kept: frozenset[str]) -> list[Any]:
    """The entries whose methods are all kept; of a choice the alternatives whose are."""
    entries = []
    for entry in place:
        if "choice" in entry:
            items = [item for item in entry["choice"] if {*methods_in(item)} <= kept]
            if any(methods_in(items)):
                entries.append({**entry, "choice": items})
        elif {*methods_in(entry)} <= kept:
            entries.append(entry)
    return entries


def _once(place: list[Any], target: Target) -> list[Any]:
    """What fits of the entries, without the second of what a target has once."""
    entries: list[Any] = []
    for entry in place:
        fitting = _fitting(entry, target.fit)
        methods, present = {*methods_in(entry)}, {*methods_in(entries)}
        is_second = any(methods & group and present & group for group in target.once)
        if fitting is not None and not is_second:
            entries.append(fitting)
    return entries


def _fitting(tree: Any, fit: Fit) -> Any:
    """Of an entry what fits, of a choice the alternatives that do; None if that is nothing."""
    if isinstance(tree, list):
        branches = [_fitting(branch, fit) for branch in tree]
        return None if None in branches else branches
    if isinstance(tree, Mapping) and "choice" in tree:
        items = [each for item in tree["choice"] if (each := _fitting(item, fit)) is not None]
        return {**tree, "choice": items} if any(methods_in(items)) else None
    return fit(tree) if isinstance(tree, Mapping) else tree


def _strings(tree: Any) -> Iterator[str]:
    """All strings of a document."""
    if isinstance(tree, str):
        yield tree
    branches = tree.values() if isinstance(tree, Mapping) else tree
    if isinstance(tree, Mapping | list):
        for branch in branches:
            yield from _strings(branch)
