from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from autopeft.core.errors import StudyError
from autopeft.task.snippets import movie_snippets


def test_the_published_sentences() -> None:
    table = movie_snippets()
    assert table.column_names == ["text", "label"]
    assert Counter(table["label"][:]) == {"negative": 5363, "positive": 5242}
    assert table[2] == {"text": "Effective but too tepid biopic", "label": "negative"}
    assert "Almodóvar" in table[617]["text"]


def test_two_at_once_fetch_into_an_empty_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOPEFT_CACHE", str(tmp_path))
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: movie_snippets(), range(2))
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
        movie_snippets()


def test_a_cache_that_cannot_be_made_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AUTOPEFT_CACHE", str(tmp_path / "file"))
    with pytest.raises(StudyError, match=r"^task.data: .* set AUTOPEFT_CACHE to another folder"):
        movie_snippets()
