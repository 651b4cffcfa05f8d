"""Images of tables and of folders, as bytes and as pixels."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from datasets import Dataset
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from transformers import BaseImageProcessor

from autopeft.core.errors import StudyError, shown
from autopeft.model.hub import locate
from autopeft.task.data import IMAGE
from autopeft.task.rows import KEY, Row, read_rows
from autopeft.task.tables import column_of, filled_tables, is_table, split_of

IMAGE_COLUMNS = ("image", "img", "picture", "pixel_values", "file_name")
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


def picture_tables(reference: str, column: str | None) -> dict[str, Dataset]:
    """The tables that `reference` stands for, by split, with every image as bytes.

    They have the column `image`, in `text` its digest, and all other columns.

    Args:
        reference: as in `read_tables`; or a folder with a folder of images for each class, of
            which there may be one set for each split.
        column: of the images, or of their paths beside the data; None stands for the obvious one.

    Raises:
        StudyError: see `filled_tables`; some row has no image that can be read.
    """
    path = locate(reference, KEY)
    if path is not None and path.is_dir() and (found := _sorted_pictures(path)):
        return found
    beside = path if path is None or path.is_dir() else path.parent
    tables = filled_tables(reference)
    return {split: _read(table, split, column, beside) for split, table in tables.items()}


def _sorted_pictures(folder: Path) -> dict[str, Dataset]:
    """The images of a folder by split, labelled by the folder in which they lie.

    None where it holds a table, which says more. Those without a folder for their class are left
    out.
    """
    files = sorted(folder.rglob("*"))
    if any(is_table(file) for file in files):
        return {}
    rows: dict[str, list[dict[str, Any]]] = {}
    for file in files:
        parts = file.relative_to(folder).parts
        split = split_of(parts[0])
        if file.suffix.lower() in _SUFFIXES and len(parts) > 1 + (split is not None):
            rows.setdefault(split or "train", []).append({IMAGE: str(file), "label": parts[-2]})
    return {s: _read(Dataset.from_list(of), s, IMAGE, None) for s, of in rows.items()}


def _read(table: Dataset, split: str, column: str | None, folder: Path | None) -> Dataset:
    name = column_of(table, IMAGE, column, IMAGE_COLUMNS)
    if isinstance(table.features[name], datasets.Image):
        table = table.cast_column(name, datasets.Image(decode=False))

    def content(row: Row) -> bytes:
        return _content(row[name], folder)

    pictures = read_rows(table.select_columns(name), split, content)
    others = [c for c in table.column_names if c not in (name, "text", IMAGE)]
    made = {
        "text": [hashlib.sha256(picture).hexdigest() for picture in pictures],
        IMAGE: pictures,
        **{other: table[other][:] for other in others},
    }
    features = {"text": datasets.Value("string"), IMAGE: datasets.Value("binary")}
    features |= {other: table.features[other] for other in others}
    return Dataset.from_dict(made, features=datasets.Features(features))


def _content(value: Any, folder: Path | None) -> bytes:
    """The bytes of an image, given as such, as a path or as what `datasets` makes of both."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        try:
            value = ((folder or Path()) / value).read_bytes()
        except OSError as error:
            raise ValueError(f"{error.strerror}: {value}") from error
    if not isinstance(value, bytes):
        raise ValueError(f"expected an image, got {shown(value)}")
    _opened(value)
    return value


def _opened(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content))
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError("expected an image, got bytes that are none") from error


class Pictures(Sequence[Tensor]):
    """Images as a model takes them, (channels, height, width) each.

    Their size is made once; colours are scaled each time, so that a byte a pixel is kept.

    Args:
        contents: bytes of the files.
        processor: of the model.
        split: whose images they are.

    Raises:
        StudyError: an image is broken.
    """

    def __init__(
        self, contents: Sequence[bytes], processor: BaseImageProcessor, split: str
    ) -> None:
        self._processor = processor
        self._sized = [self._of_size(*each, split) for each in enumerate(contents, 1)]

    def _of_size(self, row: int, content: bytes, split: str) -> Tensor:
        try:
            picture = ImageOps.exif_transpose(_opened(content)).convert("RGB")
        except (ValueError, OSError) as error:
            reason = f"row {row} of the split {split!r} has a broken image: {error}"
            raise StudyError(reason, KEY) from error
        made = self._processor(picture, do_rescale=False, do_normalize=False, return_tensors="pt")
        return made["pixel_values"][0].round().to(torch.uint8)

    def __len__(self) -> int:
        return len(self._sized)

    def __getitem__(self, index: Any) -> Any:
        made = self._processor(
            self._sized[index],
            do_resize=False,
            do_center_crop=False,
            input_data_format="channels_first",
            return_tensors="pt",
        )
        return made["pixel_values"][0]
