"""The trainings and the steps of a method."""

from __future__ import annotations

from dataclasses import dataclass

from autopeft.method.count import count
from autopeft.search.surrogate import one_thread
from benchmarks.methods.entries import ENTRIES
from benchmarks.methods.theirs import accuracy, model_of
from benchmarks.rows import Row
from benchmarks.step_variants import (
    backbone,
    by_turns,
    frozen_steps,
    made_up,
    of_whole_batch,
    our_steps,
    steps_of,
)
from benchmarks.trial_variants import Size
from benchmarks.value.bench import bench

DATA = "movies"


@dataclass(frozen=True)
class Training:
    """One training of a method; `theirs` with the layers of HF peft."""

    method: str
    theirs: bool
    seed: int
    n_train: int
    epochs: float


@dataclass(frozen=True)
class Steps:
    """The steps of a method that are timed."""

    method: str
    n_steps: int
    tokens: int


def train(order: Training) -> Row:
    """The accuracy on the test split, and of ours the trained elements besides the head."""
    with one_thread():
        here, entry = bench(DATA, 0, order.n_train), ENTRIES[order.method]
        config = here.space(entry.document).resolve({})
        if order.theirs:
            examples = here.examples
            model = model_of(entry, len(examples.label_names), order.seed)
            splits = examples.splits["train"], examples.splits["test"]
            return {"accuracy": accuracy(model, config, *splits, order.epochs, order.seed)}
        tested = here.tested(config, order.epochs, order.seed)
        return {"accuracy": tested, "count": count(config, here.shape).trainable}


def time_steps(order: Steps) -> Row:
    """Median seconds of a step beside those of the frozen model and of HF peft."""
    entry, texts = ENTRIES[order.method], made_up(Size(step_tokens=order.tokens), 0)
    config = of_whole_batch(bench(DATA, 0, 32).space(entry.document).resolve({}))
    depth = min(config.layers, default=0)
    ours, least = by_turns(
        our_steps(backbone(), config, texts), frozen_steps(backbone(), depth, texts), order.n_steps
    )
    row = {"ours": ours, "frozen": least}
    if entry.peft is not None:
        theirs = steps_of(model_of(entry, 2, 0), texts)
        mine, other = by_turns(our_steps(backbone(), config, texts), theirs, order.n_steps)
        row |= {"ours_again": mine, "peft": other}
    return row
