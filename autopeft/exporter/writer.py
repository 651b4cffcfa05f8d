"""Writes a trained configuration in a format."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_IMODE

from autopeft.core.declaration import GATES
from autopeft.core.errors import ExportError, unknown
from autopeft.exporter.card import CardFacts, card
from autopeft.exporter.companions import write_companions
from autopeft.exporter.exporter import Exporter, Obstacle, Trained
from autopeft.exporter.hf_peft import HFPeft
from autopeft.exporter.registry import EXPORTERS
from autopeft.method.registry import describe

CARD_FILE = "README.md"


def export(
    format: str,
    trained: Trained,
    output: str | Path,
    facts: CardFacts,
    *,
    overwrite: bool = False,
    uniform: bool | None = None,
) -> Path:
    """Writes a trained configuration with a model card to the folder `output`.

    The folder appears at once when it is complete, never in parts. The backbone is, bit for bit,
    what it was. The merged format keeps the dtype of the backbone: hold it in float32 for exact
    weights.

    Args:
        format: a name of `EXPORTERS`.
        trained: on a backbone that carries no configuration.
        output: the folder, whose parents are made if need be.
        facts: what the card says beside the configuration.
        overwrite: whether a folder that is not empty may be replaced.
        uniform: of the format `peft`, see `HFPeft`.

    Raises:
        ExportError: an unknown format, or one without what is asked for; a configuration or
            backbone that the format cannot hold, with every placement in the way; tensors that do
            not fit; a folder that is not empty.
        AttachError: the configuration does not fit the backbone, or one is on it already.
    """
    if format not in EXPORTERS:
        raise ExportError(unknown("format", format, EXPORTERS), "format")
    exporter = EXPORTERS[format]
    if uniform is not None:
        if not isinstance(exporter, HFPeft):
            raise ExportError("goes with the format peft", "uniform")
        exporter = HFPeft(uniform)
    return write(exporter, format, trained, Path(output).absolute(), facts, overwrite=overwrite)


def write(
    exporter: Exporter,
    format: str,
    trained: Trained,
    output: Path,
    facts: CardFacts,
    *,
    overwrite: bool = False,
) -> Path:
    """What `export` does once the exporter is known."""
    _check_output(output, overwrite)
    settled = trained.settled()
    obstacles = (*_gates(exporter, settled), *exporter.obstacles(settled))
    if obstacles:
        raise ExportError("; ".join(map(_sentence, obstacles)), f"format {format}")
    with _whole_or_nothing(output) as folder:
        exporter.write(settled, folder)
        write_companions(settled.backbone, folder)
        usage = exporter.usage(settled).replace('"FOLDER"', json.dumps(output.name))
        text = card(exporter.library, trained.config, facts, usage)
        (folder / CARD_FILE).write_text(text, encoding="utf-8")
        for file in filter(Path.is_file, folder.rglob("*")):  # safetensors gives all to the owner
            file.chmod(S_IMODE((folder / CARD_FILE).stat().st_mode))
    return output


def _gates(exporter: Exporter, trained: Trained) -> Iterator[Obstacle]:
    """The placements with gates, which many formats do not hold."""
    for placement in trained.config.placements:
        if not exporter.holds_gates and any(map(dict(placement.options).get, GATES)):
            yield Obstacle(placement, f"folders of {exporter.library} hold no gates")


def _sentence(obstacle: Obstacle) -> str:
    subject = "the backbone" if obstacle.placement is None else describe(obstacle.placement)
    return f"{subject}: {obstacle.reason}"


def _check_output(output: Path, overwrite: bool) -> None:
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise ExportError("exists and is no folder", str(output))
    if not overwrite and output.is_dir() and any(output.iterdir()):
        raise ExportError("the folder is not empty", str(output))


@contextmanager
def _whole_or_nothing(output: Path) -> Iterator[Path]:
    """A new folder beside `output` that takes its place at the end, or vanishes on an error."""
    output.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex[:8]
    fresh = output.with_name(f".{output.name}.{mark}.new")
    stale = output.with_name(f".{output.name}.{mark}.old")
    fresh.mkdir()
    try:
        yield fresh
        if output.exists():
            output.rename(stale)
        fresh.rename(output)
    except BaseException:
        if stale.exists():
            stale.rename(output)
        raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(stale, ignore_errors=True)
