"""What `list` shows: names with one line each."""

from __future__ import annotations

from autopeft.core.catalog import names, read
from autopeft.search.sampler import SAMPLERS
from autopeft.space.placement import METHODS

_FOLDERS = {"spaces": "search_spaces", "objectives": "objectives", "studies": "studies"}

_SAMPLERS = {
    "bayes": "Gaussian process over learned objectives; known ones enter the acquisition exactly",
    "gp": "Gaussian process of Optuna over all objectives",
    "nsga2": "genetic, non-dominated sorting and crowding",
    "nsga3": "genetic, non-dominated sorting and reference points",
    "qmc": "quasi-random Sobol sequence",
    "random": "uniform",
    "tpe": "tree-structured Parzen estimator",
}


def entries(kind: str) -> list[dict[str, str]]:
    """The names of a kind with a description each."""
    if kind == "methods":
        return [
            {"name": name, "description": ", ".join(spec.options) or "no options"}
            for name, spec in METHODS.items()
        ]
    if kind == "samplers":
        return [{"name": name, "description": _SAMPLERS[name]} for name in sorted(SAMPLERS)]
    folder = _FOLDERS[kind]
    return [
        {"name": name, "description": str(read(folder, name)[0].get("description", ""))}
        for name in names(folder)
    ]
