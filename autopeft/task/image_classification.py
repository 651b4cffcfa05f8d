"""Classes, sets of classes or numbers of images."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from datasets import Dataset
from transformers import BaseImageProcessor

from autopeft.task.batches import PIXELS, Encoded
from autopeft.task.classification import Classification
from autopeft.task.data import IMAGE, Columns, Data, load_data
from autopeft.task.pictures import Pictures, picture_tables
from autopeft.task.tables import SPLITS
from autopeft.task.tokens import Examples

PATCH = 16
"""Pixels to the side of what counts as a token where batches are cut for evaluation."""


class ImageClassification(Classification):
    """What an image is.

    Attributes:
        image_column: of images, or of their paths; None stands for the obvious one.
    """

    auto: ClassVar[str] = "AutoModelForImageClassification"
    type: Literal["image-classification"] = "image-classification"
    image_column: str | None = None

    def load(self) -> Data:
        columns = Columns("text", None, self.label_column, self.group_column, beside=(IMAGE,))
        return load_data(
            picture_tables(self.data, self.image_column),
            columns,
            self.labels,
            max_train_samples=self.max_train_samples,
            max_eval_samples=self.max_eval_samples,
            validation_fraction=self.validation_fraction,
        )

    def encode(self, data: Data, reader: BaseImageProcessor) -> Examples:
        splits = {s: _encoded(s, getattr(data, s), reader) for s in SPLITS}
        return self.weighed(Examples(data.label_names, splits))


def _encoded(split: str, table: Dataset, processor: BaseImageProcessor) -> Encoded:
    pictures = Pictures(table[IMAGE][:], processor, split)
    _, height, width = pictures[0].shape
    tokens = max(1, height * width // PATCH**2)
    lengths = torch.full((len(pictures),), tokens)
    return Encoded(split, {PIXELS: pictures}, {}, lengths, torch.tensor(table["label"][:]))
