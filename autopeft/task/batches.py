"""Token ids of a split, and batches of them with little padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from autopeft.core.errors import StudyError, shown
from autopeft.model.head import IGNORED, Criterion
from autopeft.model.positions import positions
from autopeft.task.answers import Answers
from autopeft.task.rows import KEY
from autopeft.task.split import texts_of

_JITTER = 1.0

PIXELS = "pixel_values"
"""The argument of models of images."""


@dataclass(frozen=True)
class Batch:
    """Examples of one step on the device of the model.

    Attributes:
        inputs: arguments of the model, each (examples, tokens), those of choices (examples,
            choices, tokens), of images (examples, channels, height, width).
        labels: the targets, (examples, …).
    """

    inputs: Mapping[str, Tensor]
    labels: Tensor


@dataclass(frozen=True)
class Cut:
    """What a limit of tokens leaves out.

    Attributes:
        whole: tokens of each example before it was cut, (examples,).
        lost: how many of them are left out, (examples,).
    """

    whole: Tensor
    lost: Tensor

    @classmethod
    def of(cls, whole: Sequence[int], limit: int) -> Cut:
        """What is cut of examples with so many tokens."""
        tokens = torch.tensor(whole)
        return cls(tokens, (tokens - limit).clamp(min=0))

    def __add__(self, other: Cut) -> Cut:
        """Of two texts of each example."""
        return Cut(self.whole + other.whole, self.lost + other.lost)

    @property
    def extent(self) -> dict[str, int]:
        """Examples and tokens, and how many of each are cut."""
        examples, tokens = int((self.lost > 0).sum()), int(self.lost.sum())
        whole = {"examples": len(self.whole), "tokens": int(self.whole.sum())}
        return {**whole, "cut_examples": examples, "cut_tokens": tokens}


@dataclass(frozen=True)
class Encoded:
    """A split as token ids.

    Attributes:
        name: of the split.
        columns: for each argument of the model one tensor (tokens,) an example, (choices, tokens)
            or (channels, height, width).
        padding: what fills up each argument.
        lengths: (examples,) in tokens.
        labels: the targets, (examples, …), or where they are of tokens (tokens,) of each example.
        cut: what is left out of them; None of examples without texts.
        importance: of each example in training, (examples,); None is the same for all.
        answers: what the model is to say by itself; None where it is not asked to.
        references: what metrics have to know of each example beside its target; None is nothing.
        units: which of them are judged together, by equal numbers, (examples,); None is none.
        multiple: of what number the tokens of a batch are on CUDA.
    """

    name: str
    columns: Mapping[str, Sequence[Tensor]]
    padding: Mapping[str, int]
    lengths: Tensor
    labels: Tensor | Sequence[Tensor]
    cut: Cut | None = None
    importance: Tensor | None = None
    answers: Answers | None = None
    references: Sequence[Any] | None = None
    units: Tensor | None = None
    multiple: int = 8

    @classmethod
    def of(
        cls, name: str, table: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> Encoded:
        """The texts of `table`, cut after `max_length` tokens or at the limit of the model.

        Raises:
            StudyError: a text has no tokens.
        """
        texts = texts_of(table)
        limit = min(max_length, tokenizer.model_max_length)
        encoding = tokenizer(*texts, truncation=True, max_length=limit)
        columns = {
            key: [torch.tensor(row, dtype=torch.int64) for row in rows]
            for key, rows in encoding.items()
        }
        padding = dict.fromkeys(columns, 0)
        padding["input_ids"] = tokenizer.pad_token_id
        padding["token_type_ids"] = tokenizer.pad_token_type_id
        lengths = torch.tensor([len(row) for row in columns["input_ids"]])
        _check_lengths(name, lengths, texts)
        labels = torch.tensor(table["label"][:])
        named = dict(zip(("text", "text_pair"), texts, strict=False))
        cut = cut_of(tokenizer, encoding["input_ids"], limit, named)
        return cls(name, columns, padding, lengths, labels, cut)

    def __len__(self) -> int:
        return len(self.labels)

    def evenly(self, n: int) -> Tensor:
        """The rows of `n` units from first to last, of all where there are no more."""
        units = torch.arange(len(self)) if self.units is None else self.units
        distinct = units.unique()
        places = torch.linspace(0, len(distinct) - 1, min(n, len(distinct))).round().long()
        return torch.isin(units, distinct[places]).nonzero().flatten()

    def n_units(self, rows: Tensor) -> int:
        """How many units some rows are of."""
        return len(rows) if self.units is None else len(self.units[rows].unique())

    @property
    def extent(self) -> dict[str, int]:
        """See `Cut.extent`; the number of examples alone where they have no texts."""
        return {"examples": len(self)} if self.cut is None else self.cut.extent

    def batch(
        self, rows: Tensor, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> Batch:
        """The examples `rows` (examples,), padded to the longest of them.

        On CUDA to a multiple of 8, if nothing else is said, which tensor cores and fused attention
        want. Pixels come in `dtype`.
        """
        indices = rows.tolist()
        missing = -int(self.lengths[rows].max()) % self.multiple if device.type == "cuda" else 0
        inputs = {}
        for name, column in self.columns.items():
            examples = [column[i] for i in indices]
            if name == PIXELS:
                inputs[name] = torch.stack(examples).to(device, dtype)
            else:
                padded = _padded(examples, self.padding[name])
                inputs[name] = F.pad(padded, (0, missing), value=self.padding[name]).to(device)
        return Batch(inputs, self._targets(rows, missing).to(device))

    def weights(self, criterion: Criterion) -> Tensor:
        """How much each example weighs in a loss, (examples,)."""
        if isinstance(self.labels, Tensor):
            return criterion.weights(self.labels)
        return torch.cat([criterion.weights(targets[None]) for targets in self.labels])

    def _targets(self, rows: Tensor, missing: int) -> Tensor:
        if isinstance(self.labels, Tensor):
            return self.labels[rows]
        padded = pad_sequence([self.labels[i] for i in rows.tolist()], True, IGNORED)
        return F.pad(padded, (0, missing), value=IGNORED)


def _padded(examples: Sequence[Tensor], fill: int) -> Tensor:
    """Ids (…, tokens) side by side, (examples, …, tokens of the longest)."""
    if examples[0].dim() == 1:
        return pad_sequence(list(examples), True, fill)
    longest = max(ids.shape[-1] for ids in examples)
    return torch.stack([F.pad(ids, (0, longest - ids.shape[-1]), value=fill) for ids in examples])


def _check_lengths(name: str, lengths: Tensor, texts: Sequence[Sequence[str]]) -> None:
    empty = (lengths == 0).nonzero().flatten().tolist()
    if empty:
        first = " and ".join(shown(column[empty[0]]) for column in texts)
        raise StudyError(
            f"{len(empty)} of {len(lengths)} rows of the split {name!r} have no token for this "
            f"model, first row {empty[0] + 1}: {first}",
            KEY,
        )


def cut_of(
    tokenizer: PreTrainedTokenizerBase,
    kept: Sequence[Sequence[int]],
    limit: int,
    texts: Mapping[str, Sequence[Any]],
    **options: Any,
) -> Cut:
    """What is cut of texts, those that are as long as may be read once more.

    Args:
        tokenizer: that has read them.
        kept: the token ids of each row.
        limit: how many they may be.
        texts: what each row was read from, as the tokenizer calls it.
        options: of the tokenizer.
    """
    whole = [len(ids) for ids in kept]
    full = [row for row, length in enumerate(whole) if length >= limit]
    if full:
        again = {name: [column[row] for row in full] for name, column in texts.items()}
        read = tokenizer(**again, **options, verbose=False)["input_ids"]
        for row, ids in zip(full, read, strict=True):
            whole[row] = len(ids)
    return Cut.of(whole, limit)


def check_embeddings(splits: Sequence[Encoded], model: PreTrainedModel) -> None:
    """Checks that a model of texts has an embedding for every token and for its place.

    Raises:
        StudyError: it has not; says the id or the length and how many there are.
    """
    if model.main_input_name == PIXELS:
        return
    if model.config.is_encoder_decoder:
        _check_written(splits, positions(model, writes=True))
    types = getattr(model.config.get_text_config(), "type_vocab_size", None)
    tables = {"input_ids": model.get_input_embeddings().num_embeddings, "token_type_ids": types}
    for split in splits:
        for name in split.columns.keys() & {key for key, rows in tables.items() if rows}:
            largest = max(int(ids.max()) for ids in split.columns[name])
            _check_id(f"{name} of the split {split.name!r} go up to", largest, tables[name])
            _check_id(f"{name} are padded with", split.padding[name], tables[name])


def _check_written(splits: Iterable[Encoded], most: int) -> None:
    """Checks what a decoder reads: targets and answers, or a text that is judged as a whole."""
    for split in splits:
        is_target = not isinstance(split.labels, Tensor)
        lengths = map(len, split.labels) if is_target else split.lengths.tolist()
        sizes = {"max_target_length" if is_target else "max_length": max(lengths)}
        if split.answers is not None:
            sizes["max_new_tokens"] = split.answers.max_new_tokens
        for name, size in sizes.items():
            if size > most:
                reason = f"the decoder takes {most} tokens, got {size} in the split {split.name!r}"
                raise StudyError(reason, f"task.{name}")


def _check_id(which: str, number: int, n_rows: int) -> None:
    if number >= n_rows:
        reason = f"{which} {number}, but the embedding of the model ends at {n_rows - 1}"
        raise StudyError(f"{reason}: its tokenizer belongs to another model", "model")


def shuffled(lengths: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless epochs of row indices, `size` of similar length at a time, in random order.

    Lengths are blurred by one token before sorting, so that no two epochs have the same batches.
    """
    while True:
        noise = torch.rand(len(lengths), generator=generator)
        batches = torch.argsort(lengths + _JITTER * noise).split(size)
        order = torch.randperm(len(batches), generator=generator)
        yield from (batches[i] for i in order.tolist())


def by_length(lengths: Tensor, max_tokens: int) -> Iterator[Tensor]:
    """All row indices once, longest first, at most `max_tokens` with padding at a time."""
    rows = torch.argsort(lengths, descending=True, stable=True)
    start = 0
    while start < len(rows):
        size = max(1, max_tokens // int(lengths[rows[start]]))
        yield rows[start : start + size]
        start += size
