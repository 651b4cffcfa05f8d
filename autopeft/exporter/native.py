"""The format of autopeft itself: it holds every configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from autopeft.core import catalog
from autopeft.core.config import PeftConfig
from autopeft.core.errors import AttachError, ExportError, raised_as
from autopeft.exporter.exporter import Exporter, Obstacle, Trained
from autopeft.method.attach import Attached, attach
from autopeft.method.sites import shape_of
from autopeft.train.member_training import STATE_FILE

CONFIG_FILE = "config.yaml"
_HEADER = "autopeft"


class Native(Exporter):
    """`config.yaml`, a document of the search-space language with no choice left, and
    `peft.safetensors`, the trained tensors under their own names.
    """

    library: ClassVar[str] = "autopeft"

    def obstacles(self, trained: Trained) -> tuple[Obstacle, ...]:
        return ()

    def write(self, trained: Trained, folder: Path) -> None:
        with trained.attached() as attached:
            tensors = {name: t.cpu().contiguous() for name, t in attached.state_dict().items()}
        header = {
            "modules_to_save": list(trained.backbone.modules_to_save),
            "backbone": _likeness(trained.model),
        }
        document = yaml.safe_dump(trained.config.to_dict(), sort_keys=False, allow_unicode=True)
        (folder / CONFIG_FILE).write_text(document, encoding="utf-8")
        save_file(tensors, folder / STATE_FILE, {"format": "pt", _HEADER: json.dumps(header)})

    def loads(self, trained: Trained) -> str:
        loading = 'model = autopeft.load(model, "FOLDER").model.eval()'
        return f"import autopeft\n{trained.loads_base()}\n{loading}"


def load(model: PreTrainedModel, folder: str | Path) -> Attached:
    """Puts the configuration and the trained tensors of a native folder on `model`, in place.

    Args:
        model: of the architecture that the tensors were trained on, with a head of equal shape;
            its pretrained weights should be the same, which is not checked.
        folder: as the native exporter writes it.

    Raises:
        ExportError: a file is missing or unreadable, or the tensors belong to another backbone;
            `model` is as it was then.
        AttachError: `model` carries a configuration already.
    """
    folder = Path(folder)
    config = _read_config(folder / CONFIG_FILE)
    header, state = _read_weights(folder / STATE_FILE)
    _check_likeness(header["backbone"], model, folder)
    missing = [path for path in header["modules_to_save"] if not _has_module(model, path)]
    if missing:
        raise ExportError(f"{type(model).__name__} has no module {missing[0]!r}", str(folder))
    try:
        return attach(model, config, modules_to_save=header["modules_to_save"], state=state)
    except AttachError as error:
        if error.where != "state":
            raise
        raise ExportError(f"the tensors do not fit the model: {error}", str(folder)) from error


def _read_config(path: Path) -> PeftConfig:
    """The configuration of a native folder."""
    try:
        with raised_as(ExportError):
            document, _ = catalog.read("search_spaces", path)
            return PeftConfig.from_dict(document)
    except (KeyError, TypeError) as error:
        raise ExportError(f"is no configuration: {error!r}", str(path)) from error


def _read_weights(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and the tensors of a native folder."""
    if not path.is_file():
        raise ExportError("no such file", str(path))
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_HEADER)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ExportError(f"is no safetensors file: {error}", str(path)) from error
    if header is None:
        raise ExportError("was not written by autopeft's native exporter", str(path))
    return json.loads(header), state


def _likeness(model: PreTrainedModel) -> dict[str, Any]:
    """What a backbone must have in common with the one that was trained on."""
    layers = shape_of(model).layers
    return {"model_type": model.config.model_type, "widths": [layer.width for layer in layers]}


def _check_likeness(trained: Mapping[str, Any], model: PreTrainedModel, folder: Path) -> None:
    present = _likeness(model)
    if present != trained:
        was, now = _described(trained), _described(present)
        raise ExportError(f"was trained on {was}, got {now}", str(folder))


def _described(likeness: Mapping[str, Any]) -> str:
    widths = likeness["widths"]
    span = "/".join(map(str, sorted(set(widths))))
    return f"{likeness['model_type']} with {len(widths)} layers of width {span}"


def _has_module(model: PreTrainedModel, path: str) -> bool:
    return path in dict(model.named_modules())
