"""Where the winner of a study will run, and what of a space cannot go there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from autopeft.api.placements import methods_in, placements_in
from autopeft.core.catalog import Reference
from autopeft.core.config import PeftConfig
from autopeft.core.errors import StudyError, inside, unknown
from autopeft.core.methods import Peft
from autopeft.exporter.hf_peft import TRANSLATIONS
from autopeft.method.registry import METHODS
from autopeft.model.head import Head
from autopeft.space import SearchSpace


@dataclass(frozen=True)
class Target:
    """What loads an exported folder.

    Attributes:
        format: of the folder.
        families: methods that it loads together; any where there are none.
        trained_heads: whether it loads a head that was trained.
        quantized: whether the backbone of the folder may be.
    """

    format: str
    families: tuple[frozenset[str], ...] = ()
    trained_heads: bool = True
    quantized: bool = True


_SERVER = Target("peft", (frozenset({"lora", "moslora"}),), trained_heads=False)

TARGETS: Mapping[str, Target] = {
    "native": Target("native"),
    "peft": Target("peft", tuple(kind.methods for kind in TRANSLATIONS)),
    "merged": Target(
        "merged",
        (frozenset(name for name, method in METHODS.items() if method.merges),),
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
    """

    space: Reference
    methods: frozenset[str] | None
    lost: tuple[str, ...]

    def takes(self, config: PeftConfig) -> bool:
        """Whether a baseline can go there."""
        return self.methods is None or all(p.method in self.methods for p in config.placements)


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
    if not target.families:
        return Deployable(space, None, ())
    present = Counter(methods_in(document["place"]))
    kept = max(target.families, key=lambda family: sum(present[method] for method in family))
    loaded = _without(document["place"], kept)
    place = _once(loaded) if target.format == "peft" else loaded
    if present and not place:
        known = ", ".join(sorted(kept))
        raise StudyError(f"{name} loads nothing of the space, of all methods {known}", "deploy")
    doubles = Counter(methods_in(loaded)) - Counter(methods_in(place))
    lost = ({*present} - kept) | {*doubles}
    return Deployable({**document, "place": place}, kept, tuple(sorted(lost)))


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


def _once(place: list[Any]) -> list[Any]:
    """The entries without the second of what HF peft has once at a module, or in one form alone."""
    once = frozenset().union(*(kind.once for kind in TRANSLATIONS))
    entries: list[Any] = []
    for entry in place:
        methods = once & {*methods_in(entry)}
        varies = any(
            isinstance(value, Mapping) and value.get("per") != "space"
            for placement in placements_in(entry)
            if placement["method"] == Peft.method
            for key, value in placement.items()
            if key not in ("where", "targets", "learning_rate")
        )
        if not varies and not methods & {*methods_in(entries)}:
            entries.append(entry)
    return entries


def _strings(tree: Any) -> Iterator[str]:
    """All strings of a document."""
    if isinstance(tree, str):
        yield tree
    branches = tree.values() if isinstance(tree, Mapping) else tree
    if isinstance(tree, Mapping | list):
        for branch in branches:
            yield from _strings(branch)
