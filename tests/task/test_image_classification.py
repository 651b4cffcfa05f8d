"""Classes of images: forms of data, pixels, and a study from file to export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image

import autopeft
from autopeft.core.errors import StudyError
from autopeft.model.head import HEADS
from autopeft.task.pictures import Pictures, picture_tables
from autopeft.task.registry import task_of
from tests.exports import exported
from tests.small_models import save_viewer


def picture(i: int) -> Image.Image:
    """Noise, bright for odd numbers."""
    noise = np.random.default_rng(i).integers(0, 100, (20, 24, 3), dtype=np.uint8)
    return Image.fromarray(noise + np.uint8(155 * (i % 2)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve images of each of two classes, four of both for the test."""
    for i in range(24):
        split, label = "test" if i < 4 else "train", ("dark", "bright")[i % 2]
        place = tmp_path / "pictures" / split / label
        place.mkdir(parents=True, exist_ok=True)
        picture(i).save(place / f"{i}.png")
    return tmp_path / "pictures"


def test_a_folder_for_each_class_and_split(folder: Path) -> None:
    data = task_of({"type": "image-classification", "data": str(folder)}).load()
    assert data.label_names == ("bright", "dark")
    assert sorted(data.test["label"][:]) == [0, 0, 1, 1]
    assert len(data.train) + len(data.validation) == 20
    alone = task_of({"type": "image-classification", "data": str(folder / "train")}).load()
    assert len(alone.train) + len(alone.validation) + len(alone.test) == 20


def test_images_outside_a_folder_for_their_class_are_left_out(folder: Path) -> None:
    """A split is no class; a table beside the images says more than their folders."""
    picture(50).save(folder / "test" / "50.png")
    data = task_of({"type": "image-classification", "data": str(folder)}).load()
    assert data.label_names == ("bright", "dark")
    assert len(data.test) == 4
    files = sorted((folder / "train").rglob("*.png"))
    lines = [
        json.dumps({"file_name": str(f.relative_to(folder)), "label": f"x{i % 2}"})
        for i, f in enumerate(files)
    ]
    (folder / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
    data = task_of({"type": "image-classification", "data": str(folder)}).load()
    assert data.label_names == ("x0", "x1")


def test_tables_hold_images_or_paths(folder: Path, tmp_path: Path) -> None:
    """All forms are the same data, told by the same digest."""
    files = sorted((folder / "train").rglob("*.png"))
    names = [file.parent.name for file in files]
    contents = [file.read_bytes() for file in files]
    lines = [
        json.dumps({"file_name": str(file.relative_to(tmp_path)), "label": name})
        for file, name in zip(files, names, strict=True)
    ]
    (tmp_path / "paths.jsonl").write_text("\n".join(lines), encoding="utf-8")
    raw = datasets.Dataset.from_dict({"img": contents, "label": names})
    raw.to_parquet(tmp_path / "bytes.parquet")
    typed = datasets.Dataset.from_dict({"image": [str(f) for f in files], "label": names})
    typed.cast_column("image", datasets.Image()).save_to_disk(tmp_path / "typed")
    digests = {
        task_of({"type": "image-classification", "data": str(tmp_path / name)}).load().digest
        for name in ("paths.jsonl", "bytes.parquet", "typed", "pictures/train")
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("nowhere.png", "first row 2: No such file or directory: nowhere.png"),
        ("paths.jsonl", "first row 2: expected an image, got bytes that are none"),
        (7, "expected an image, got 7"),
    ],
)
def test_rows_without_an_image_are_told(value: Any, reason: str, tmp_path: Path) -> None:
    picture(0).save(tmp_path / "0.png")
    rows = [{"image": "0.png" if value != 7 else 7}, {"image": value}]
    path = tmp_path / "paths.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(StudyError, match=reason):
        picture_tables(str(path), None)


def test_a_broken_image_is_told(folder: Path) -> None:
    whole = next(folder.rglob("*.png")).read_bytes()
    processor = tf.ViTImageProcessor(size={"height": 16, "width": 16})
    with pytest.raises(StudyError, match="row 2 of the split 'test' has a broken image"):
        Pictures([whole, whole[:100]], processor, "test")


def test_pixels_are_those_of_the_processor() -> None:
    """Up to the byte that a pixel of another size is kept in."""
    import io

    contents = []
    for i in range(3):
        file = io.BytesIO()
        picture(i).save(file, "png")
        contents.append(file.getvalue())
    processor = tf.ViTImageProcessor(size={"height": 16, "width": 16})
    given = torch.stack(list(Pictures(contents, processor, "train")))
    expected = processor([picture(i) for i in range(3)], return_tensors="pt")["pixel_values"]
    assert given.shape == (3, 3, 16, 16)
    assert torch.allclose(given, expected, atol=2 / 255 / 0.5)


def brightness(folder: Path, model: Path, pictures: Path) -> dict[str, Any]:
    """A study of images, files in a folder."""
    return {
        "name": "bright",
        "model": str(model),
        "task": {"type": "image-classification", "data": str(pictures)},
        "space": {
            "name": "layers",
            "place": [
                {
                    "method": "lora",
                    "r": 4,
                    "targets": ["q", "v"],
                    "where": {"choice": ["all", "2"]},
                }
            ],
            "train": {"learning_rate": 1e-2, "batch_size": 4},
        },
        "objectives": "accuracy-params",
        "search": {"n_trials": 2, "n_finalists": 0},
        "fidelity": {"epochs": 6.0},
        "storage": f"sqlite:///{folder}/study.db",
        "output": str(folder / "out"),
    }


def test_a_study_ends_in_exports_that_see_the_same(folder: Path, tmp_path: Path) -> None:
    """Also where the lower layers are computed once an image."""
    base = save_viewer(tmp_path / "model")
    outcome = autopeft.run(brightness(tmp_path, base, folder))
    assert [t.state for t in outcome.trials] == ["complete"] * 2
    best = outcome.choose("best").trial
    assert best.values["accuracy"] == 1.0
    processor = tf.AutoImageProcessor.from_pretrained(base)
    seen = processor([picture(i) for i in range(24)], return_tensors="pt")
    logits = {}
    auto = tf.AutoModelForImageClassification
    for form, model in exported(outcome, best.number, auto, base, tmp_path):
        with torch.no_grad():
            logits[form] = model(**seen).logits
    assert logits["native"].argmax(1).tolist() == [(i + 1) % 2 for i in range(24)]
    assert torch.allclose(logits["native"], logits["peft"], atol=1e-5)
    assert torch.allclose(logits["native"], logits["merged"], atol=1e-4)
    again = tf.AutoImageProcessor.from_pretrained(tmp_path / "merged")
    assert again.size == processor.size


def test_the_head_takes_images() -> None:
    assert HEADS["image-classification"].sees
    assert not HEADS["text-classification"].sees
