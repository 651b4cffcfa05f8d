from __future__ import annotations

import ast
import os
from pathlib import Path
from stat import S_IMODE

import pytest
import torch

from autopeft.core.config import PeftConfig
from autopeft.core.errors import ExportError
from autopeft.exporter import Exporter, Obstacle, Trained
from autopeft.exporter.writer import write
from autopeft.train.member_training import save_tensors
from tests.backbones import inputs, tiny
from tests.contracts.exporter import FACTS, backbone, exported, lora, train


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train(backbone(tiny("bert")), PeftConfig.of([lora([0])]), inputs("bert"))[0]


def test_unknown_format_names_the_nearest(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"unknown format 'merge'.*did you mean 'merged'"):
        exported("merge", trained, tmp_path / "out")


def test_folder_that_is_not_empty_is_kept(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "note").write_text("mine")
    with pytest.raises(ExportError, match="the folder is not empty"):
        exported("native", trained, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["note"]


def test_overwriting_replaces_the_folder_whole(trained: Trained, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "stale").write_text("old")
    exported("native", trained, output, overwrite=True)
    assert sorted(p.name for p in output.iterdir()) == [
        "README.md",
        "config.json",
        "config.yaml",
        "peft.safetensors",
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("umask", [0o027, 0o002])
def test_files_are_for_whom_the_umask_says(trained: Trained, tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        folder = exported("native", trained, tmp_path / "out")
        save_tensors({"a": torch.zeros(2)}, tmp_path / "trial", "")
    finally:
        os.umask(before)
    files = [*folder.iterdir(), *(tmp_path / "trial").iterdir()]
    assert len(files) == 5
    assert {S_IMODE(file.stat().st_mode) for file in files} == {0o666 & ~umask}


def test_the_name_of_a_folder_is_no_code(trained: Trained, tmp_path: Path) -> None:
    name = 'a"); import os; os.abort() #'
    text = (exported("native", trained, tmp_path / name) / "README.md").read_text(encoding="utf-8")
    usage = text.split("```python\n")[1].split("```")[0]
    constants = [n.value for n in ast.walk(ast.parse(usage)) if isinstance(n, ast.Constant)]
    assert name in constants


def test_empty_folder_and_missing_parents_will_do(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert (exported("native", trained, tmp_path / "empty") / "README.md").is_file()
    assert (exported("native", trained, tmp_path / "a/b/c") / "README.md").is_file()


def test_file_in_the_place_of_the_folder_is_refused(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ExportError, match="exists and is no folder"):
        exported("native", trained, tmp_path / "out", overwrite=True)


class Breaks(Exporter):
    library = "none"

    def obstacles(self, trained: Trained) -> tuple[Obstacle, ...]:
        return ()

    def write(self, trained: Trained, folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError("disk full")

    def loads(self, trained: Trained) -> str:
        return ""


def test_failure_half_way_leaves_what_was_there(trained: Trained, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "old").write_text("old")
    with pytest.raises(OSError, match="disk full"):
        write(Breaks(), "broken", trained, output, FACTS, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert [p.name for p in output.iterdir()] == ["old"]
