"""A search engine for parameter-efficient fine-tuning.

Define a search space, run a study, look at its Pareto front, export the winner.
"""

from importlib import import_module
from typing import Any

from autopeft.core.methods import DECLARATIONS

_HOMES = {
    **{kind.__name__: "core.methods" for kind in DECLARATIONS.own.values()},
    "Layers": "space",
    "SearchSpace": "space",
    "choice": "space",
    "integer": "space",
    "real": "space",
    "subset": "space",
    "AutoPeftError": "core.errors",
    "Outcome": "api.outcome",
    "PeftConfig": "core.config",
    "Run": "train.custom",
    "attach": "method.attach",
    "compare": "api.compare",
    "export": "api.export",
    "limited": "api.limits",
    "load": "exporter.native",
    "open_study": "api.outcome",
    "pareto": "api.outcome",
    "plan": "api.plan",
    "propose": "api.steer",
    "push_to_hub": "api.hub",
    "rerun": "api.rerun",
    "run": "api.run",
    "steer": "api.steer",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for, so that `import autopeft` is quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'autopeft' has no attribute {name!r}")
    return getattr(import_module(f"autopeft.{_HOMES[name]}"), name)
