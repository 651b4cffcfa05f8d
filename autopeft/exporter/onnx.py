"""A graph of the whole model for ONNX Runtime, which holds every configuration."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from autopeft.core.errors import ExportError
from autopeft.exporter.exporter import Exporter, Obstacle, Trained
from autopeft.exporter.sample import arranged, reads, sample_of
from autopeft.memory.meta_step import batch_of
from autopeft.model.backbone import Backbone
from autopeft.model.hub import quiet
from autopeft.model.lower_layers import in_eval

MODEL_FILE = "model.onnx"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
LARGEST = 2 * 10**9
"""Bytes of weights in the file of the graph; more stand beside it."""
TOLERANCE = 1e-3
"""How far outputs of the graph may be off, of the largest or of 1."""

_ROWS, _TOKENS = 3, 9
_AXES = {2: ("batch", "sequence"), 3: ("batch", "choices", "sequence"), 4: ("batch",)}


class Onnx(Exporter):
    """`model.onnx` with batch and length left open.

    The attached parts are nodes of the graph like all others. A model that generates returns the
    logits of the tokens it is given and keeps no cache.
    """

    library: ClassVar[str] = "onnxruntime"

    def obstacles(self, trained: Trained) -> tuple[Obstacle, ...]:
        if getattr(trained.model.config, "quantization_config", None) is not None:
            return (Obstacle(None, "is quantized; hold it in float32 or bfloat16"),)
        missing = [name for name in PACKAGES if find_spec(name) is None]
        if missing:
            reason = f"needs {', '.join(missing)}: pip install 'autopeft[onnx]'"
            return (Obstacle(None, reason),)
        return ()

    def write(self, trained: Trained, folder: Path) -> None:
        with trained.attached(), in_eval(trained.model.modules()), torch.no_grad():
            _export(trained.backbone, folder / MODEL_FILE)
            for rows, tokens in ((1, _TOKENS - 4), (_ROWS + 1, _TOKENS + 2)):
                _check(trained.backbone, folder / MODEL_FILE, rows, tokens)

    def loads(self, trained: Trained) -> str:
        return (
            "import onnxruntime\nfrom pathlib import Path\nfrom transformers import AutoConfig\n"
            'config = AutoConfig.from_pretrained("FOLDER")\n'
            f'model = onnxruntime.InferenceSession(Path("FOLDER") / "{MODEL_FILE}")'
        )

    def usage(self, trained: Trained) -> str:
        asked, reader = sample_of(trained.backbone), reads(trained.backbone, generates=False)
        runs = (
            "names = [each.name for each in model.get_outputs()]\n"
            "given = {each.name: inputs[each.name] for each in model.get_inputs()}\n"
            "outputs = dict(zip(names, model.run(names, given)))"
        )
        read = asked.read.replace('"pt"', '"np"')
        return arranged(self.loads(trained), reader, asked.given, read, runs, asked.said)


class _Graph(nn.Module):
    """A model as a function of tensors by position."""

    def __init__(self, model: PreTrainedModel, names: tuple[str, ...]) -> None:
        super().__init__()
        self._model, self._names = model, names

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(self._names, tensors, strict=True))
        return tuple(_outputs(self._model, given).values())


def _outputs(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a model says of a batch, by name."""
    returned = model(**batch, return_dict=True)
    names = ("logits", "start_logits", "end_logits")
    return {name: returned[name] for name in names if returned.get(name) is not None}


def _export(backbone: Backbone, path: Path) -> None:
    batch = _batch(backbone, _ROWS, _TOKENS)
    model = backbone.model
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    axes = {name: dict(enumerate(_AXES[t.dim()])) for name, t in batch.items()}
    if "decoder_input_ids" in axes:
        axes["decoder_input_ids"][1] = "target"
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Graph(model, tuple(batch)),
                tuple(batch.values()),
                path,
                dynamo=True,
                verbose=False,
                external_data=size > LARGEST,
                dynamic_shapes=(tuple(axes.values()),),
                input_names=list(batch),
                output_names=list(_outputs(model, batch)),
            )
    except Exception as error:  # whatever the tracing of a model raises
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ExportError(f"{type(model).__name__} is no graph: {reason}", "format onnx") from error


def _batch(backbone: Backbone, rows: int, tokens: int) -> dict[str, Tensor]:
    """A random batch; of texts the last is padded, and targets are a token longer."""
    model, criterion = backbone.model, backbone.criterion
    generator = torch.Generator().manual_seed(rows)
    blank = batch_of(model, criterion, rows, tokens)
    if isinstance(backbone.reader, PreTrainedTokenizerBase):
        read = {*backbone.reader.model_input_names, "labels"}
        blank = {name: tensor for name, tensor in blank.items() if name in read}
    given: dict[str, Tensor] = {}
    for name, tensor in blank.items():
        if name == "input_ids":
            most = model.config.get_text_config().vocab_size - 1
            given[name] = torch.randint(most, tensor.shape, generator=generator)
        elif name == "attention_mask":
            given[name] = torch.ones(tensor.shape, dtype=torch.int64)
            given[name][-1, ..., tokens - 2 :] = 0
        elif name == "pixel_values":
            given[name] = torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
        elif name != "labels":
            given[name] = torch.zeros(tensor.shape, dtype=torch.int64)
    targets = torch.ones(criterion.blank(rows, tokens + 1, 1).shape, dtype=torch.int64)
    inputs = criterion.inputs(model, given, targets)
    return {name: tensor.to(model.device) for name, tensor in inputs.items()}


def _check(backbone: Backbone, path: Path, rows: int, tokens: int) -> None:
    """Runs the graph on a batch of another size."""
    import onnxruntime

    batch = _batch(backbone, rows, tokens)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = {i.name: batch[i.name].cpu().numpy() for i in session.get_inputs()}
    expected = _outputs(backbone.model, batch).values()
    for mine, of in zip(session.run(None, given), expected, strict=True):
        off = float((torch.from_numpy(mine) - of.cpu()).abs().max())
        if not off <= TOLERANCE * max(1.0, float(of.abs().max())):
            reason = f"the graph of {type(backbone.model).__name__} is off by {off:.2g}"
            raise ExportError(reason, "format onnx")
