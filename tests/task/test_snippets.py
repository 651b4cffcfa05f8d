from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from autopeft.core.errors import StudyError
from autopeft.task.snippets import snippets
from tests.minilm import MOVIES


def test_the_published_sentences() -> None:
    table = snippets(MOVIES)
    assert table.column_names == ["text", "label"]
    assert Counter(table["label"][:]) == {"negative": 5363, "positive": 5242}
    assert table[2] == {"text": "Effective but too tepid biopic", "label": "negative"}
    assert "Almodóvar" in table[617]["text"]


@pytest.mark.parametrize(
    ("reference", "negative", "positive"),
    [
        ("package:product-snippets", 1_580, 2_128),
        ("package:editorial-snippets", 2_986, 2_204),
        ("package:tweet-snippets", 1_303, 2_897),
    ],
)
def test_sentences_of_other_kinds(reference: str, negative: int, positive: int) -> None:
    labels = snippets(reference)["label"][:]
    assert Counter(labels) == {"negative": negative, "positive": positive}


def test_two_at_once_fetch_into_an_empty_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOPEFT_CACHE", str(tmp_path))
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: snippets(MOVIES), range(2))
    assert first.to_dict() == second.to_dict()
    assert len(first) == 10_605
    assert [path.name for path in (tmp_path / "movie-snippets").iterdir()] == [
        "movieReviewSnippets_GroundTruth.txt"
    ]


def test_a_damaged_cache_is_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPEFT_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    path = tmp_path / "movie-snippets" / "movieReviewSnippets_GroundTruth.txt"
    path.parent.mkdir()
    path.write_text("1\t2.0\tA forgery.")
    with pytest.raises(StudyError, match=r"^task.data: `python -m pip download .*` failed: ERROR"):
        snippets(MOVIES)


def test_a_cache_that_cannot_be_made_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AUTOPEFT_CACHE", str(tmp_path / "file"))
    with pytest.raises(StudyError, match=r"^task.data: .* set AUTOPEFT_CACHE to another folder"):
        snippets(MOVIES)
