"""Token ids of a split, and batches of them with little padding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

_JITTER = 1.0


@dataclass(frozen=True)
class Batch:
    """Examples of one step on the device of the model.

    Attributes:
        inputs: arguments of the model, each (examples, tokens).
        labels: (examples,).
    """

    inputs: Mapping[str, Tensor]
    labels: Tensor


@dataclass(frozen=True)
class Encoded:
    """A split as token ids.

    Attributes:
        name: of the split.
        columns: for each argument of the model one tensor (tokens,) an example.
        padding: what fills up each argument.
        lengths: (examples,) in tokens.
        labels: (examples,).
    """

    name: str
    columns: Mapping[str, list[Tensor]]
    padding: Mapping[str, int]
    lengths: Tensor
    labels: Tensor

    @classmethod
    def of(
        cls, name: str, table: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> Encoded:
        """The texts of `table`, cut after `max_length` tokens or at the limit of the model."""
        texts = [list(table[c]) for c in ("text", "text_pair") if c in table.column_names]
        limit = min(max_length, tokenizer.model_max_length)
        encoding = tokenizer(*texts, truncation=True, max_length=limit)
        columns = {key: [torch.tensor(row) for row in rows] for key, rows in encoding.items()}
        padding = dict.fromkeys(columns, 0)
        padding["input_ids"] = tokenizer.pad_token_id
        padding["token_type_ids"] = tokenizer.pad_token_type_id
        lengths = torch.tensor([len(row) for row in columns["input_ids"]])
        return cls(name, columns, padding, lengths, torch.tensor(table["label"][:]))

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: Tensor, device: torch.device) -> Batch:
        """The examples `rows` (examples,), padded to the longest of them.

        On CUDA to a multiple of 8, which tensor cores and fused attention want.
        """
        indices = rows.tolist()
        missing = -int(self.lengths[rows].max()) % 8 if device.type == "cuda" else 0
        inputs = {}
        for name, column in self.columns.items():
            fill = self.padding[name]
            padded = pad_sequence([column[i] for i in indices], True, fill)
            inputs[name] = F.pad(padded, (0, missing), value=fill).to(device)
        return Batch(inputs, self.labels[rows].to(device))


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
