"""Token ids of a split, computed once on a node and mapped into memory by its processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from autopeft.model.cache import cached_folder, key_of
from autopeft.task.batches import Cut, Encoded
from autopeft.task.data import Data
from autopeft.task.digest import digest_of
from autopeft.task.split import texts_of
from autopeft.task.tables import SPLITS

_FILE = "tokens.safetensors"
_FORMAT = 4
"""Of the file; a number that changes with what it holds."""


@dataclass(frozen=True)
class Examples:
    """Data as a model reads them.

    Attributes:
        label_names: of the classes.
        splits: token ids by the name of the split.
    """

    label_names: tuple[str, ...]
    splits: Mapping[str, Encoded]

    @property
    def extent(self) -> dict[str, dict[str, int]]:
        """How much there is of each split, see `Cut.extent`."""
        return {name: split.extent for name, split in self.splits.items()}

    @classmethod
    def of(cls, data: Data, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Examples:
        """The examples of some data, see `encoded`."""
        splits = {s: encoded(s, getattr(data, s), tokenizer, max_length) for s in SPLITS}
        return cls(data.label_names, splits)


def encoded(
    name: str, table: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Encoded:
    """`Encoded.of`, computed once on a node for the same texts, tokenizer and length.

    Raises:
        StudyError: see `Encoded.of`.
    """

    def made() -> dict[str, Tensor]:
        made = Encoded.of(name, table, tokenizer, max_length)
        columns = {f"column.{c}": torch.cat(list(rows)) for c, rows in made.columns.items()}
        padding = {f"padding.{c}": torch.tensor(fill) for c, fill in made.padding.items()}
        about = {"lengths": made.lengths, **({} if made.cut is None else vars(made.cut))}
        return {**about, **columns, **padding}

    limit = min(max_length, tokenizer.model_max_length)
    tensors = tensors_of(made, tokenizer, texts_of(table), limit)
    sizes = tensors["lengths"].tolist()
    named = [n.removeprefix("column.") for n in tensors if n.startswith("column.")]
    return Encoded(
        name,
        {column: list(tensors[f"column.{column}"].split(sizes)) for column in named},
        {column: int(tensors[f"padding.{column}"]) for column in named},
        tensors["lengths"],
        torch.tensor(table["label"][:]),
        Cut(tensors["whole"], tensors["lost"]),
    )


def tensors_of(
    make: Callable[[], Mapping[str, Tensor]],
    tokenizer: PreTrainedTokenizerBase,
    columns: Sequence[Sequence[str]],
    *about: Any,
) -> Mapping[str, Tensor]:
    """What a fast tokenizer makes of texts, computed once on a node for the same of everything.

    Args:
        make: computes it.
        tokenizer: that it reads with.
        columns: the texts.
        about: what else it depends on.

    Raises:
        StudyError: as `make`.
    """
    if not tokenizer.is_fast:
        return make()
    key = key_of(_FORMAT, _settings(tokenizer), *about, *map(digest_of, columns))

    def write(folder: Path) -> None:
        save_file(dict(make()), folder / _FILE)

    n_bytes = 8 * sum(len(text) for column in columns for text in column)
    folder = cached_folder("tokens", key, n_bytes, write)
    return make() if folder is None else load_file(folder / _FILE)


def _settings(tokenizer: PreTrainedTokenizerBase) -> str:
    """Everything about a tokenizer that decides on token ids."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    del backend["truncation"], backend["padding"]  # those of the last call
    special = (tokenizer.pad_token_id, tokenizer.pad_token_type_id, tokenizer.special_tokens_map)
    sides = [getattr(tokenizer, name, None) for name in ("truncation_side", "src_lang", "tgt_lang")]
    parts = (type(tokenizer).__name__, special, sides, tokenizer.model_input_names, backend)
    return digest_of([json.dumps(parts, sort_keys=True)])
