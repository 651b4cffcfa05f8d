"""What trials that did not fit into memory mean for those that come."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from autopeft.core.config import PeftConfig
from autopeft.core.quantity import prefixed
from autopeft.core.report import Failure
from autopeft.study.index import Index
from autopeft.study.terms import Terms

_log = logging.getLogger("autopeft")

MEMORY = "peak_memory"
"""The quantity whose limit falls; where nothing predicts it, none does."""


class Shortages:
    """Lowers the limit of predicted memory below what did not fit.

    What did not fit on a device of another kind or a smaller one than this run's says nothing, and
    nothing what is predicted to take less than what has been trained to its end.

    Args:
        terms: of the study, whose limits fall.
    """

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._seen: set[int] = set()

    def attributes(self, failure: Failure, config: PeftConfig | None) -> dict[str, Any]:
        """What the record keeps of a failure, with the bytes that were predicted, 0 for none."""
        error = failure.error + failure.where
        if failure.fault == "divergence":
            return {"error": error, "diverged": True}
        if failure.shortage is None or config is None:
            return {"error": error}
        try:
            predicted = int(self._terms.known[MEMORY].value(config))
        except Exception:  # whatever stops a prediction, the shortage is known
            predicted = 0
        shortage = {**asdict(failure.shortage), "predicted": predicted}
        return {"error": error + _circumstances(shortage), "shortage": shortage}

    def learn(self, index: Index) -> None:
        """Takes in what trials have recorded."""
        for number in sorted(index.shortages.keys() - self._seen):
            self._seen.add(number)
            self._lower(number, index.shortages[number], index.greatest(MEMORY))

    def _lower(self, number: int, shortage: Mapping[str, Any], fits: float) -> None:
        predicted, limits, terms = shortage["predicted"], self._terms.limits, self._terms
        is_of_it = (shortage["device"] == "cpu") == (terms.device == "cpu")
        is_larger = shortage["total"] < (terms.device_memory or 0)
        if MEMORY not in terms.known or not is_of_it or is_larger:
            return
        if fits < predicted <= limits.get(MEMORY, math.inf):
            limits[MEMORY] = predicted - 1
            told = f"{_amount(predicted)} or more of predicted memory are not tried any more"
            _log.warning("trial %d does not fit on %s; %s", number, shortage["device"], told)


def _circumstances(shortage: Mapping[str, Any]) -> str:
    """Of a shortage, to follow the text of the error."""
    told = {"total": "in all", "predicted": "predicted"}
    bytes_ = [f"{_amount(shortage[key])} {what}" for key, what in told.items() if shortage[key]]
    place = f"batches of {shortage['batch_size']} on {shortage['device']}"
    return f" ({': '.join([place, ', '.join(bytes_)]) if bytes_ else place})"


def _amount(value: float) -> str:
    """Bytes as people read them."""
    return "{} {}B".format(*prefixed(value, 3))
