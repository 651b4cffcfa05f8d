"""Spaces that are broken at random, read and drawn from in this process, which is quick."""

from __future__ import annotations

import random
import signal
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from autopeft.core.catalog import names, parse, read
from autopeft.core.errors import AutoPeftError
from autopeft.core.shape import Shape
from autopeft.method.count import trained_elements
from autopeft.space.space import SearchSpace
from benchmarks.faults.mutations import Document, broken_document, broken_text, written
from benchmarks.rows import Row
from benchmarks.scale.record import bound_space

PATIENCE, N_DRAWN = 20, 3
"""Seconds for one document, and configurations that are drawn from one that means something."""


class _LateError(BaseException):
    """Time is over; no handler of exceptions holds it up."""


@dataclass(frozen=True)
class Fuzz:
    """So many seconds, with a seed."""

    seconds: float
    seed: int = 0


def fuzzed(order: Fuzz) -> Row:
    """How many documents were refused or meant something, and the errors of any other kind."""
    rng, shape = random.Random(order.seed), bound_space().shape
    catalog = [dict(read("search_spaces", name)[0]) for name in sorted(names("search_spaces"))]
    ends: Counter[str] = Counter()
    errors: dict[str, str] = {}
    deadline = time.monotonic() + order.seconds
    warnings.simplefilter("ignore")
    while time.monotonic() < deadline:
        document, seed = rng.choice(catalog), rng.randrange(2**32)
        try:
            text = _broken(document, rng)
        except RecursionError:  # brackets within brackets that YAML does not write
            continue
        end, error = _end_of(text, shape, seed)
        ends[end] += 1
        if end == "error":
            errors.setdefault(error, text.decode(errors="replace")[:3000])
    return {"documents": ends.total(), "ends": dict(ends), "errors": errors}


def _broken(document: Document, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 4))):
        document = broken_document(document, rng)
    text = written(document)
    return broken_text(text, rng) if rng.random() < 0.2 else text


def _end_of(text: bytes, shape: Shape, seed: int) -> tuple[str, str]:
    try:
        with _in_time():
            _use(parse(text.decode(), "space.yaml"), shape, seed)
    except (AutoPeftError, UnicodeDecodeError):
        return "refused", ""
    except (Exception, _LateError) as error:  # any other is what is looked for
        return "error", f"{type(error).__name__}: {error}"[:300]
    return "means something", ""


def _use(document: Document, shape: Shape, seed: int) -> None:
    """What a study does with a space before it trains; what it draws can be drawn again."""
    space: Any = SearchSpace.load(document)
    bound = space.on(shape, trained_elements)
    rng = np.random.default_rng(seed)
    for _ in range(N_DRAWN):
        drawn = bound.draw(rng)
        assert bound.at(drawn.point).config == drawn.config
        for near in bound.near(drawn, rng, 2):
            assert near.config.key
    again = SearchSpace.load(space.to_dict())
    assert {**again.to_dict(), "name": ""} == {**space.to_dict(), "name": ""}


@contextmanager
def _in_time() -> Iterator[None]:
    def late(*_: object) -> None:
        raise _LateError(f"no end after {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
