"""Data that are given as objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from datasets import Dataset, DatasetDict
from datasets import Image as Picture
from PIL import Image

import autopeft
from autopeft.api.frames import on_disk
from autopeft.api.run import prepare
from autopeft.core.errors import StudyError
from autopeft.study.spec import load_spec
from tests import tiny


def study(folder: Path, data: Any) -> dict[str, Any]:
    made = tiny.study(folder)
    return {**made, "name": "objects", "task": {**made["task"], "data": data}}


def test_frames_and_datasets_are_the_same_data_as_their_file(tmp_path: Path) -> None:
    file = tiny.write_data(tmp_path)
    frame = pd.read_csv(file)
    whole = Dataset.from_pandas(frame)
    digests = {
        prepare(study(tmp_path, data)).task.load().digest
        for data in (str(file), frame, whole, DatasetDict(train=whole))
    }
    assert len(digests) == 1


def test_splits_may_be_given(tmp_path: Path) -> None:
    table = Dataset.from_pandas(pd.read_csv(tiny.write_data(tmp_path)))
    halves = {"train": table.select(range(40)), "test": table.select(range(40, 48))}
    data = prepare(study(tmp_path, halves)).task.load()
    assert len(data.test) == 8
    with pytest.raises(
        StudyError, match=r"task.data: expected train, validation or test, got 'tr'"
    ):
        prepare(study(tmp_path, {"tr": table}))


def test_a_study_goes_on_with_the_same_frame_and_not_with_another(tmp_path: Path) -> None:
    frame = pd.read_csv(tiny.write_data(tmp_path))
    options = {"search": {"sampler": "random", "n_trials": 1, "n_finalists": 0}}
    first = autopeft.run({**study(tmp_path, frame), **options})
    again = autopeft.run({**study(tmp_path, frame.copy()), **options})
    assert [t.number for t in again.trials] == [t.number for t in first.trials]
    with pytest.raises(StudyError, match="data"):
        autopeft.run({**study(tmp_path, frame[:40]), **options})


def test_the_same_images_lie_in_the_same_place(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (4, 4), (i, 0, 0)) for i in range(4)]
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / f"{i}.png")
    files = [str(tmp_path / f"{i}.png") for i in range(4)]
    table = Dataset.from_dict({"image": files, "label": ["a", "b"] * 2}).cast_column(
        "image", Picture()
    )
    spec = load_spec({**study(tmp_path, table), "name": "pictures"})
    assert len({on_disk(spec).task["data"] for _ in range(3)}) == 1


def test_what_is_no_table_is_told(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"task.data: expected a path, .* got list"):
        prepare(study(tmp_path, [{"text": "good", "label": "yes"}]))
