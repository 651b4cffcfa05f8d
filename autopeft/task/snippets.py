"""Rated sentences: what references such as `package:movie-snippets` stand for."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset

from autopeft.core.errors import StudyError
from autopeft.model.cache import cache_folder
from autopeft.model.release import Release, sha256, verify, write_whole
from autopeft.task.rows import KEY

_ARCHIVE = Release(
    "vaderSentiment",
    "3.3.2",
    "vaderSentiment-3.3.2.tar.gz",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
)
_INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
_FOLDER = "hutto_ICWSM_2014"


@dataclass(frozen=True)
class _File:
    """Rated sentences in the archive.

    Attributes:
        name: of the file.
        sha256: of its content, in hexadecimal digits.
    """

    name: str
    sha256: str


_FILES: Mapping[str, _File] = {
    "package:movie-snippets": _File(
        "movieReviewSnippets_GroundTruth.txt",
        "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350",
    ),
    "package:product-snippets": _File(
        "amazonReviewSnippets_GroundTruth.txt",
        "11a9807a0974a2506a2d3b4851eaf69b3d6d20688ce4923adda2312a4f6dd6c2",
    ),
    "package:editorial-snippets": _File(
        "nytEditorialSnippets_GroundTruth.txt",
        "7d8fbcce7dde5d716da53e78f4ef4be6b706e9ef1e1d51887e6d0ad4b69cc27e",
    ),
    "package:tweet-snippets": _File(
        "tweets_GroundTruth.txt",
        "dfbe7102e2f92579ed8b19df9a3822491880697c67adf712fb66e520cc05102f",
    ),
}
SNIPPETS = tuple(_FILES)
"""References of rated sentences: of movie and product reviews, of editorials, and tweets."""


def snippets(reference: str) -> Dataset:
    """Sentences with the columns `text` and `label` (`negative`, `positive`).

    People rated each sentence from -4 to 4; the sign of the mean rating is the label. The source
    archive of vaderSentiment is fetched once with pip and verified.

    Args:
        reference: one of `SNIPPETS`.

    References:
        Hutto and Gilbert, VADER, ICWSM 2014.

    Raises:
        StudyError: the archive cannot be fetched, is not the published one, or cannot be kept.
    """
    file = _FILES[reference]
    path = _made(cache_folder() / reference.removeprefix("package:")) / file.name
    if not path.is_file() or sha256(path.read_bytes()) != file.sha256:
        write_whole(path, _extracted(_ARCHIVE.fetch(KEY), file))
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


def _extracted(content: bytes, file: _File) -> bytes:
    """The rated sentences out of the archive inside the archive."""
    for name in (_INNER, f"{_FOLDER}/{file.name}"):
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            member = archive.extractfile(name)
            assert member is not None
            content = member.read()
    verify(content, file.sha256, file.name, KEY)
    return content
