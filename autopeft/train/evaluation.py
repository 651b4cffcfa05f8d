"""Measures a member of a pack on examples of a split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from autopeft.core.errors import DivergenceError
from autopeft.core.settings import TrainSettings
from autopeft.method.member import Member
from autopeft.task.batches import Encoded, by_length
from autopeft.task.task import Judged
from autopeft.train.generation import generated
from autopeft.train.passes import Passes

Measure = Callable[[Judged], dict[str, float]]

CPU_TOKENS = 2048
"""Most tokens of a batch on a CPU; of more of them the activations leave the caches."""

CPU_OUTPUTS = 2**24
"""Most words times tokens of a batch on a CPU, where a language model rates every word."""


@torch.inference_mode()
def evaluate(
    passes: Passes, member: Member, split: Encoded, rows: Tensor, measure: Measure
) -> dict[str, float]:
    """Every metric of a member as it is, in eval mode, with `n_examples`.

    Args:
        passes: with the member in their pack.
        member: who is measured.
        split: where the examples are from.
        rows: which ones, (rows,).
        measure: of the task.

    Raises:
        DivergenceError: some output is not finite.
    """
    passes.backbone.model.eval()
    criterion = passes.criterion
    wanted: list[Any] = []
    given: list[Any] = []
    references: list[Any] = []
    loss, weight, n_broken = 0.0, 0.0, 0
    max_tokens = _trained(member, split)
    if passes.backbone.device.type == "cpu":
        max_tokens = min(max_tokens, _computed(passes))
    for places in by_length(split.lengths[rows], max_tokens):
        sizes = [len(places) if other is member else 0 for other in passes.pack.members]
        outputs, targets = passes.outputs(split, rows[places], sizes)
        least, most = outputs.flatten(1).aminmax(dim=1)
        n_broken += int((~(least.isfinite() & most.isfinite())).sum())
        loss += criterion.losses(outputs, targets).sum().item()
        weight += criterion.weights(targets).sum().item()
        wanted += criterion.rows(targets, targets)
        given += criterion.rows(criterion.predictions(outputs), targets)
        if split.references is not None:
            references += [split.references[row] for row in rows[places].tolist()]
        del outputs  # before those of the next batch, or answers, need memory
    if n_broken:
        examples = f"{n_broken} of {len(rows)} {split.name} examples"
        raise DivergenceError(f"the logits of {examples} are not finite")
    values = measure(Judged(wanted, given, loss / max(1.0, weight), references))
    measured = {**values, "n_examples": split.n_units(rows)}
    if split.answers is None:
        return measured
    said = generated(passes, member, split.answers, rows, max_tokens)
    return {**measured, **split.answers.compared(rows.tolist(), said)}


def _computed(passes: Passes) -> int:
    """Most tokens of a batch on a CPU."""
    words = passes.backbone.model.get_output_embeddings()
    return CPU_TOKENS if words is None else min(CPU_TOKENS, CPU_OUTPUTS // words.weight.shape[0])


def _trained(member: Member, split: Encoded) -> int:
    """Tokens of a micro-batch of the training, for which there was memory, and for more than it."""
    batch_size = TrainSettings(**dict(member.config.train)).batch_size
    return batch_size * int(split.lengths.max())
