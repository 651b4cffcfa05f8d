"""The one-shot searches by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autopeft.core.errors import StudyError, unknown
from autopeft.core.registry import Registry
from autopeft.core.validation import validated
from autopeft.oneshot.proposer import Proposer
from autopeft.oneshot.pruning import Pruning
from autopeft.oneshot.sensitivity import Sensitivity
from autopeft.oneshot.supernet import Supernet
from autopeft.oneshot.switches import Switches

PROPOSERS: Registry[type[Proposer]] = Registry(
    {
        "pruning": Pruning,
        "sensitivity": Sensitivity,
        "supernet": Supernet,
        "switches": Switches,
    },
    "autopeft.proposers",
    lambda kind: isinstance(kind, type) and issubclass(kind, Proposer),
)


def make_proposer(document: Mapping[str, Any]) -> Proposer:
    """The search of a `type` with its options.

    Raises:
        StudyError: an unknown type or option, or a value that is none.
    """
    options, where = dict(document), "search.proposers"
    kind = str(options.pop("type", None))
    if kind not in PROPOSERS:
        raise StudyError(unknown("proposer", kind, PROPOSERS), where)
    return validated(PROPOSERS[kind], options, f"{where}: {kind}")
