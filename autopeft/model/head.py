"""What a task puts on a pretrained model, and what its outputs are to come close to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

IGNORED = -100
"""The target of a token that is not judged."""


class Criterion(ABC):
    """What is trained for: a loss of every row of a batch, weighed by how much the row holds.

    The loss of a batch is the sum of its rows' losses over the sum of their weights, so that it
    does not depend on how a batch is cut into micro-batches.
    """

    def inputs(
        self, model: PreTrainedModel, inputs: Mapping[str, Tensor], targets: Tensor
    ) -> Mapping[str, Tensor]:
        """The arguments of the model, from those that an example holds, (rows, …)."""
        return inputs

    def kept(self, model: PreTrainedModel, targets: Tensor) -> Tensor | None:
        """The positions of which the model computes outputs, (positions,); None is all."""
        return None

    def outputs(self, returned: Any) -> Tensor:
        """What counts of what a model returns, (rows, …)."""
        return returned.logits

    @abstractmethod
    def losses(self, outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        """The loss of every row, (rows,).

        Args:
            outputs: (rows, …).
            targets: (rows, …).
            smoothing: share of the target that goes to all classes alike, where there are classes.
        """

    def weights(self, targets: Tensor) -> Tensor:
        """How much every row weighs, (rows,)."""
        return torch.ones(len(targets))

    @abstractmethod
    def predictions(self, outputs: Tensor) -> Tensor:
        """What the outputs say in the terms of the targets, (rows, …)."""

    def rows(self, values: Tensor, targets: Tensor) -> list[Any]:
        """Targets or predictions of each row, without those that are not judged."""
        return values.tolist()

    @abstractmethod
    def blank(self, rows: int, tokens: int, n_labels: int) -> Tensor:
        """Targets of that many rows, on the meta device."""

    def shape(self, rows: int, tokens: int) -> tuple[int, ...]:
        """That of the token ids of so many rows."""
        return rows, tokens


class OneLabel(Criterion):
    """One of several classes: targets (rows,), outputs (rows, classes)."""

    def losses(self, outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        return F.cross_entropy(
            outputs.float(), targets, reduction="none", label_smoothing=smoothing
        )

    def predictions(self, outputs: Tensor) -> Tensor:
        return outputs.argmax(-1)

    def blank(self, rows: int, tokens: int, n_labels: int) -> Tensor:
        return torch.empty(rows, dtype=torch.int64, device="meta")


class Choices(OneLabel):
    """One of several texts: targets (rows,), outputs (rows, choices), inputs (rows, choices, …).

    Args:
        n_choices: of every row.
    """

    def __init__(self, n_choices: int) -> None:
        self._n_choices = n_choices

    def shape(self, rows: int, tokens: int) -> tuple[int, ...]:
        return rows, self._n_choices, tokens


class ManyLabels(Criterion):
    """Any of several classes: targets and outputs (rows, classes); targets are 0 or 1."""

    def losses(self, outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        smooth = targets * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(outputs.float(), smooth, reduction="none").mean(1)

    def predictions(self, outputs: Tensor) -> Tensor:
        return (outputs > 0).long()

    def blank(self, rows: int, tokens: int, n_labels: int) -> Tensor:
        return torch.empty(rows, n_labels, device="meta")


class Value(Criterion):
    """A number: targets (rows,), outputs (rows, 1)."""

    def losses(self, outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        return (outputs.float().squeeze(-1) - targets).square()

    def predictions(self, outputs: Tensor) -> Tensor:
        return outputs.float().squeeze(-1)

    def blank(self, rows: int, tokens: int, n_labels: int) -> Tensor:
        return torch.empty(rows, device="meta")


class TokenLabels(Criterion):
    """One of several classes for each token: targets (rows, tokens), outputs (…, classes).

    Tokens whose target is `IGNORED` are not judged; a row weighs as many as are.
    """

    def losses(self, outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        each = F.cross_entropy(
            outputs.float().flatten(0, 1),
            targets.flatten(),
            ignore_index=IGNORED,
            reduction="none",
            label_smoothing=smoothing,
        )
        return each.view_as(targets).sum(1)

    def weights(self, targets: Tensor) -> Tensor:
        return (targets != IGNORED).sum(-1).float()

    def predictions(self, outputs: Tensor) -> Tensor:
        return outputs.argmax(-1)

    def rows(self, values: Tensor, targets: Tensor) -> list[list[int]]:
        return [row[of != IGNORED].tolist() for row, of in zip(values, targets, strict=True)]

    def blank(self, rows: int, tokens: int, n_labels: int) -> Tensor:
        return torch.empty(rows, tokens, dtype=torch.int64, device="meta")


class NextTokens(TokenLabels):
    """The token after each; where no row is judged, nothing is computed of the words."""

    def kept(self, model: PreTrainedModel, targets: Tensor) -> Tensor | None:
        judged = (targets != IGNORED).any(0)
        spread = len({*getattr(model, "hf_device_map", {}).values()}) > 1
        if judged.is_meta or spread or not chooses_positions(model) or bool(judged.all()):
            return None
        return judged.nonzero().flatten()


def chooses_positions(model: PreTrainedModel) -> bool:
    """Whether a model can be told of which positions words are to be rated."""
    return "logits_to_keep" in signature(type(model).forward).parameters


class TargetTokens(TokenLabels):
    """The tokens that a decoder writes, each of which it reads before it writes the next."""

    def inputs(
        self, model: PreTrainedModel, inputs: Mapping[str, Tensor], targets: Tensor
    ) -> Mapping[str, Tensor]:
        shift = getattr(model, "prepare_decoder_input_ids_from_labels", None)
        if shift is not None:
            return {**inputs, "decoder_input_ids": shift(labels=targets)}
        start = torch.full_like(targets[:, :1], model.config.decoder_start_token_id)
        read = torch.cat([start, targets[:, :-1]], dim=1)
        read = read.masked_fill(read == IGNORED, model.config.pad_token_id)
        return {**inputs, "decoder_input_ids": read}


class Span(NamedTuple):
    """The likeliest answer in a text.

    Attributes:
        first: its first token.
        last: its last token.
        score: the sum of the logits of both.
        nothing: the same of the first token of all, which stands for no answer; minus infinity
            where it may not.
    """

    first: int
    last: int
    score: float
    nothing: float


class Spans(Criterion):
    """The first and the last token of an answer: targets (rows, tokens), outputs (rows, 2, tokens).

    A target is `IGNORED` where no answer may be, else the sum of `START` and `END` where it is the
    first and the last token of the answer. A row without an answer that is marked weighs nothing.

    Args:
        longest: tokens of an answer that is predicted.
    """

    START, END = 1, 2

    def __init__(self, longest: int) -> None:
        self._longest = longest

    def outputs(self, returned: Any) -> Tensor:
        return torch.stack([returned.start_logits, returned.end_logits], 1)

    def losses(self, outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        allowed = (targets != IGNORED)[:, None]
        lowest = torch.finfo(torch.float32).min
        logs = outputs.float().masked_fill(~allowed, lowest).log_softmax(-1)
        logs = logs.masked_fill(~allowed, 0.0)
        marks = self._marks(targets)
        hit = -(logs * marks).sum(-1)
        everywhere = -logs.sum(-1) / allowed.sum(-1).clamp(min=1)
        return ((1 - smoothing) * hit + smoothing * everywhere).mean(1) * self.weights(targets)

    def weights(self, targets: Tensor) -> Tensor:
        return self._marks(targets).flatten(1).any(1).float()

    def predictions(self, outputs: Tensor) -> Tensor:
        return outputs

    def rows(self, values: Tensor, targets: Tensor) -> list[Span]:
        if values is targets:
            values = self._marks(targets).float()
        return [self._best(row, of) for row, of in zip(values.float(), targets, strict=True)]

    def blank(self, rows: int, tokens: int, n_labels: int) -> Tensor:
        return torch.empty(rows, tokens, dtype=torch.int64, device="meta")

    def _marks(self, targets: Tensor) -> Tensor:
        """Where answers begin and end, (rows, 2, tokens)."""
        known = targets.clamp(min=0)
        return torch.stack([known & self.START > 0, known & self.END > 0], 1)

    def _best(self, ends: Tensor, targets: Tensor) -> Span:
        """The likeliest span without the first token of all."""
        allowed = targets != IGNORED
        scores = ends[0][:, None] + ends[1][None]
        fits = torch.ones_like(scores, dtype=torch.bool).triu().tril(self._longest - 1)
        fits &= allowed[:, None] & allowed[None]
        fits[0] = False
        kept = scores.masked_fill(~fits, -torch.inf)
        best = int(kept.argmax())
        nothing = scores[0, 0].item() if allowed[0] else -torch.inf
        return Span(*divmod(best, len(targets)), kept.flatten()[best].item(), nothing)


@dataclass(frozen=True)
class Head:
    """What a task puts on a pretrained model.

    Attributes:
        task: type of the task.
        auto: the class of transformers that loads such a model.
        criterion: what its outputs are trained for.
        problem_type: how transformers calls that, where it has a word for it.
        n_labels: outputs, as long as the data do not say; None of a head that is pretrained.
    """

    task: str
    auto: str
    criterion: Criterion
    problem_type: str | None = None
    n_labels: int | None = 2

    @property
    def sees(self) -> bool:
        """Whether the model takes images and not texts."""
        return "Image" in self.auto


ONE_LABEL, MANY_LABELS, REGRESSION = (
    "single_label_classification",
    "multi_label_classification",
    "regression",
)
"""Kinds of classification, as transformers calls them."""

HEADS: Mapping[str, Head] = {
    head.task: head
    for head in (
        Head("text-classification", "AutoModelForSequenceClassification", OneLabel(), ONE_LABEL),
        Head("token-classification", "AutoModelForTokenClassification", TokenLabels()),
        Head("image-classification", "AutoModelForImageClassification", OneLabel(), ONE_LABEL),
        Head("causal-lm", "AutoModelForCausalLM", NextTokens(), n_labels=None),
        Head("seq2seq-lm", "AutoModelForSeq2SeqLM", TargetTokens(), n_labels=None),
    )
}
"""By type of task, as they are where nothing else is said."""
