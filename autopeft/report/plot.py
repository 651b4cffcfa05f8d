"""Writes the Pareto plot into a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from autopeft.core.errors import StudyError, unknown
from autopeft.objective.objective import Objective
from autopeft.report.chart import Chart, chart
from autopeft.report.interactive import page_of, pareto_figure
from autopeft.study.trial import TrialRecord


def plot(records: Sequence[TrialRecord], objectives: Sequence[Objective], path: str | Path) -> Path:
    """Writes the Pareto plot to `path`, whose suffix says how: `.png` or `.html`.

    Raises:
        StudyError: another suffix, a folder that does not exist, or no objective.
    """
    path = Path(path)
    if path.suffix.lower() not in WRITERS:
        raise StudyError(unknown("suffix", path.suffix, WRITERS), str(path))
    if not path.parent.is_dir():
        raise StudyError(f"no folder {str(path.parent)!r}", str(path))
    WRITERS[path.suffix.lower()](chart(records, objectives), path)
    return path


def _png(content: Chart, path: Path) -> None:
    from autopeft.report.picture import draw  # imports matplotlib

    draw(content).savefig(path)


def _html(content: Chart, path: Path) -> None:
    path.write_text(page_of(pareto_figure(content)), encoding="utf-8")


WRITERS: dict[str, Callable[[Chart, Path], None]] = {".png": _png, ".html": _html}
