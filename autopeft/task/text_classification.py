"""Classes, sets of classes or numbers of texts and of pairs of texts."""

from __future__ import annotations

from typing import ClassVar, Literal

from transformers import PreTrainedTokenizerBase

from autopeft.task.classification import Classification
from autopeft.task.data import Columns, Data, load_data
from autopeft.task.tables import filled_tables
from autopeft.task.tokens import Examples


class TextClassification(Classification):
    """What a text, or a pair of texts, is.

    Attributes:
        text_column: None, like that of its pair, stands for the obvious one.
    """

    auto: ClassVar[str] = "AutoModelForSequenceClassification"
    type: Literal["text-classification"] = "text-classification"
    text_column: str | None = None
    text_pair_column: str | None = None

    def load(self) -> Data:
        columns = Columns(
            self.text_column, self.text_pair_column, self.label_column, self.group_column
        )
        return load_data(
            filled_tables(self.data),
            columns,
            self.labels,
            max_train_samples=self.max_train_samples,
            max_eval_samples=self.max_eval_samples,
            validation_fraction=self.validation_fraction,
        )

    def encode(self, data: Data, reader: PreTrainedTokenizerBase) -> Examples:
        return self.weighed(Examples.of(data, reader, self.max_length))
