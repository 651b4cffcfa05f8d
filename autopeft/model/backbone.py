"""Pretrained models with a task head: real ones for training, weightless ones for planning."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
import transformers
from torch import nn
from transformers import (
    BaseImageProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from autopeft.core.errors import StudyError, unknown
from autopeft.core.settings import BackboneSettings
from autopeft.core.shape import Shape
from autopeft.method.sites import shape_of
from autopeft.model.checkpoint import is_trusted, source_of, weight_files
from autopeft.model.head import HEADS, Criterion, Head
from autopeft.model.hub import quiet, unreachable
from autopeft.model.loaded import Loaded, check_layers, check_loaded, draw_head, drawn, seeded
from autopeft.model.positions import positions
from autopeft.model.precision import dtype_of, fast_dtype, in_bits, spared, target_device
from autopeft.model.shared import in_dtype

_SIZES = (
    "hidden_size",
    "num_attention_heads",
    "num_hidden_layers",
    "vocab_size",
)


Reader: TypeAlias = PreTrainedTokenizerBase | BaseImageProcessor


@dataclass(frozen=True)
class Backbone:
    """A model in the form that its settings ask for.

    Attributes:
        model: in eval mode; every parameter is on `device`.
        reader: tokenizer or processor of images; None on the meta device.
        modules_to_save: paths of the modules that are trained whole whatever the configuration:
            the task head, and the pooler that feeds it.
        criterion: what the outputs of the head are trained for.
        shape: of the pretrained part.
        dtype: of the parameters that are not quantized.
        device: `meta` for a model without weights.
    """

    model: PreTrainedModel
    reader: Reader | None
    modules_to_save: tuple[str, ...]
    criterion: Criterion
    shape: Shape
    dtype: torch.dtype
    device: torch.device


def load_backbone(
    reference: str,
    head: Head | str,
    settings: BackboneSettings,
    *,
    n_labels: int,
    device: str = "auto",
    spread: bool = False,
) -> Backbone:
    """The pretrained model with a fresh head, the same in every process.

    A head that the checkpoint brings is of another task and is drawn anew.

    On the CPU the weights of a model that is not quantized are mapped from a file, which the
    processes of a node share; a process that writes to them gets pages of its own.

    Args:
        reference: id of the hub, folder, or `package:NAME/FOLDER` inside an installed package.
        head: of the task, or the name of one of `HEADS`.
        settings: precision, quantization, checkpointing.
        n_labels: outputs of the head, unless it is pretrained itself.
        device: `auto` is CUDA where there is one, else the CPU.
        spread: over all CUDA devices of this process, each with about as many of the layers.

    Raises:
        StudyError: there is no such model, it lacks weights or is quantized already, what is loaded
            differs from its `config.json`, or it does not serve the task.
    """
    target = target_device(device)
    dtype = dtype_of(settings.dtype, fast_dtype(target))
    source = source_of(reference, needs_weights=True)
    head = _head(head)
    meta = meta_backbone(reference, settings, head=head, n_labels=n_labels)
    arguments: dict[str, Any] = {
        "config": meta.model.config,
        "dtype": dtype,
        "device_map": "balanced" if spread and target.type == "cuda" else {"": target},
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,
    }
    load = partial(_loaded, type(meta.model), arguments, meta.modules_to_save)
    whole = {**arguments, "config": copy.deepcopy(meta.model.config), "device_map": {"": "cpu"}}
    in_few_bits = settings.quantization != "none"
    if in_few_bits:
        bits = in_bits(settings.quantization, dtype, spared(meta.model, meta.modules_to_save))
        arguments["quantization_config"] = bits
    shares = not in_few_bits and target.type == "cpu"
    model, _ = load(in_dtype(source, meta.model, dtype, load) if shares else source)
    check_layers(source, model, meta.model)
    model.name_or_path = model.config.name_or_path = source
    reader = load_reader(reference, head)
    if isinstance(reader, PreTrainedTokenizerBase):
        for part in (model.config, model.config.get_text_config()):
            part.pad_token_id = reader.pad_token_id
    if in_few_bits:
        _keep_4bit_layout(model)
        _tell_losses(model, lambda: _loaded(type(model), whole, meta.modules_to_save, source))
    model = _finish(model, settings)
    return replace(meta, model=model, reader=reader, dtype=dtype, device=target)


def load_reader(reference: str, head: Head | str) -> Reader:
    """What turns the examples of a task into the inputs of a model.

    Raises:
        StudyError: the model has none.
    """
    if not _head(head).sees:
        return load_tokenizer(reference)
    with quiet():
        source = source_of(reference, needs_weights=False)
        return _pretrained(transformers.AutoImageProcessor, source, {})


def load_tokenizer(reference: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model; it pads on the right, with the end token if it has no other.

    Its `model_max_length` is the number of positions of the model: that of a tokenizer may be less,
    such as 512 for T5, which takes texts of any length.

    Raises:
        StudyError: there is none, or none for batches.
    """
    model = meta_backbone(reference, BackboneSettings()).model
    with quiet():
        source = source_of(reference, needs_weights=False)
        tokenizer = _pretrained(transformers.AutoTokenizer, source, {})
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise StudyError(f"{reference!r} has no vocabulary for its tokenizer", "model")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    if tokenizer.pad_token is None:
        reason = f"the tokenizer of {reference!r} has neither a padding nor an end token"
        raise StudyError(reason, "model")
    tokenizer.padding_side = "right"
    tokenizer.model_max_length = positions(model)
    return tokenizer


def meta_backbone(
    reference: str,
    settings: BackboneSettings,
    *,
    head: Head | str | None = None,
    n_labels: int | None = None,
    device: str | None = None,
) -> Backbone:
    """The model without weights, from its `config.json` alone.

    Args:
        reference: as in `load_backbone`; a folder with only `config.json` serves.
        settings: the precision is applied, quantization is not.
        head: of the task, or the name of one of `HEADS`; None means the one that the checkpoint
            was made for, classification of texts where that says nothing.
        n_labels: outputs of the head, unless it is pretrained itself; None as it says.
        device: where the model is to run, which decides what `dtype: auto` is; None takes the
            precision in which the checkpoint is stored, bfloat16 for float16.

    Raises:
        StudyError: there is no such model, it is quantized already, or it does not serve the task.
    """
    source = source_of(reference, needs_weights=False)
    with quiet():
        config = _pretrained(transformers.AutoConfig, source, {})
    head = _head(head or task_type_of(config))
    if head.n_labels is not None:
        config.num_labels = n_labels or head.n_labels
    _check_config(source, config)
    config.problem_type = head.problem_type or config.problem_type
    dtype = dtype_of(settings.dtype, _automatic(config, device))
    model = _from_config(config, head, settings, dtype)
    return Backbone(
        model, None, head_of(model), head.criterion, shape_of(model), dtype, torch.device("meta")
    )


def _head(head: Head | str) -> Head:
    """The head of a name, or itself."""
    if isinstance(head, Head):
        return head
    if head not in HEADS:
        raise StudyError(unknown("task type", head, HEADS), "task.type")
    return HEADS[head]


def task_type_of(config: PreTrainedConfig) -> str:
    """The task that a checkpoint was made for, by its architecture or else by its type."""
    name = str((config.architectures or [""])[0])
    if "ForImage" in name or getattr(config, "image_size", None) is not None:
        return "image-classification"
    if config.is_encoder_decoder and (not name or name.endswith("ForConditionalGeneration")):
        return "seq2seq-lm"
    if name.endswith(("ForCausalLM", "LMHeadModel")) or (not name and _only_generates(config)):
        return "causal-lm"
    return "text-classification"


def _only_generates(config: PreTrainedConfig) -> bool:
    """Whether models of this type predict the next token and not a masked one."""
    auto = transformers.models.auto.modeling_auto
    masked = auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return (
        config.model_type in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        and config.model_type not in masked
    )


def check_checkpoint(reference: str, backbone: Backbone) -> None:
    """Checks that a local reference holds the weights of a backbone, of which none is read.

    Args:
        reference: as in `load_backbone`; an id of the hub is taken on trust.
        backbone: what it is as `meta_backbone`.

    Raises:
        StudyError: it holds no weights, or lacks some.
    """
    source = source_of(reference, needs_weights=True)
    folder = Path(source)
    if not folder.is_dir() or any(f.suffix != ".safetensors" for f in weight_files(folder)):
        return
    arguments = {
        "config": copy.deepcopy(backbone.model.config),
        "device_map": {"": "meta"},
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,
    }
    with quiet():
        _, info = _pretrained(type(backbone.model), source, arguments)
    check_loaded(info, backbone.modules_to_save)


def head_of(model: PreTrainedModel) -> tuple[str, ...]:
    """Paths of the modules outside the pretrained part, and of the pooler that feeds them.

    A language-modelling head is pretrained itself: such a model has none.
    """
    if model.get_output_embeddings() is not None or model.base_model is model:
        return ()
    prefix = model.base_model_prefix
    outside = [
        name
        for name, child in model.named_children()
        if name != prefix and any(True for _ in child.parameters())
    ]
    pooler = getattr(model.base_model, "pooler", None)
    if isinstance(pooler, nn.Module) and any(True for _ in pooler.parameters()):
        return (f"{prefix}.pooler", *outside)
    return tuple(outside)


def _loaded(
    kind: type[PreTrainedModel],
    arguments: Mapping[str, Any],
    drawn_anew: Sequence[str],
    source: str,
) -> Loaded:
    """A model with its weights and a fresh head, and what is missing in `source`."""
    with quiet(), seeded():
        model, info = _pretrained(kind, source, arguments)
    check_loaded(info, drawn_anew)
    draw_head(model, drawn_anew, drawn(info))
    return model, info


def _pretrained(auto: Any, source: str, arguments: Mapping[str, Any]) -> Any:
    """`auto.from_pretrained` whose errors are those of a study.

    Code that comes with the model runs only if that is trusted.
    """
    try:
        return auto.from_pretrained(source, **arguments, trust_remote_code=is_trusted(source))
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a broken file can raise anything
        if isinstance(error, OSError) and not Path(source).exists():
            raise unreachable(source, error, "model") from error
        raise StudyError(f"{source!r} cannot be used: {_reason(error)}", "model") from error


def _from_config(
    config: PreTrainedConfig, head: Head, settings: BackboneSettings, dtype: torch.dtype
) -> PreTrainedModel:
    """The model on the meta device, without caches for generation."""
    for part in (config, config.get_text_config()):
        part.use_cache = False
    try:
        with torch.device("meta"):
            kind = getattr(transformers, head.auto)
            trusts = is_trusted(config.name_or_path)
            model = kind.from_config(config, dtype=dtype, trust_remote_code=trusts)
            return _finish(model, settings)
    except Exception as error:  # a broken configuration can raise anything
        what = f"{config.name_or_path!r} of type {config.model_type!r}"
        reason = f"{what} does not serve {head.task!r}: {_reason(error)}"
        raise StudyError(reason, "model") from error


def _finish(model: PreTrainedModel, settings: BackboneSettings) -> PreTrainedModel:
    """The model in eval mode, checkpointed if its settings say so."""
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.disable_input_require_grads()  # else backward runs down to the first layer
    return model.eval()


def _keep_4bit_layout(model: nn.Module) -> None:
    """Holds bitsandbytes back from repacking weights at the first evaluation on some CPUs.

    The other layout is for inference: it has rounded scales, no gradient and no exact way back.
    """
    from bitsandbytes.nn import Linear4bit  # takes a second, and few backbones need it

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _tell_losses(model: PreTrainedModel, load_whole: Callable[[], Loaded]) -> None:
    """Lets quantized linears say what their weights have lost."""
    from autopeft.model.originals import Originals  # imports bitsandbytes, as above

    Originals(load_whole).tell(model)


def _check_config(source: str, config: PreTrainedConfig) -> None:
    """Refuses sizes that are none, and a checkpoint whose weights are stored in few bits."""
    sizes = {name: getattr(config.get_text_config(), name, 1) for name in _SIZES}
    for name, size in sizes.items():
        if isinstance(size, int) and size < 1:
            reason = f"{name} must be positive in its config.json, got {size}"
            raise StudyError(f"{source!r} cannot be used: {reason}", "model")
    stored = getattr(config, "quantization_config", None)
    if stored is not None:
        method = stored.get("quant_method", "few bits") if isinstance(stored, Mapping) else stored
        raise StudyError(
            f"{source!r} is quantized already (quantization_config in its config.json: {method}); "
            "name the checkpoint that it was made from, and autopeft quantizes that one itself",
            "model",
        )


def _automatic(config: PreTrainedConfig, device: str | None) -> torch.dtype:
    """What `dtype: auto` is on a device; where that is open, what training is nearest to."""
    if device is not None:
        return fast_dtype(torch.device(device))
    stored = config.dtype or torch.float32
    return torch.bfloat16 if stored == torch.float16 else stored


def _reason(error: Exception) -> str:
    """The first line of an error, in own words where it asks to trust code."""
    if "trust_remote_code" in str(error):
        return "it needs its own code, which runs only if the study says trust_remote_code: true"
    line, *more = str(error).strip().splitlines() or [type(error).__name__]
    line = f"{line} {more[0].strip()}" if line.endswith(":") and more else line
    return line if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {line}"
