"""Pretrained models with a task head: real ones for training, weightless ones for planning."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import nn

from autopeft.core.errors import StudyError, unknown
from autopeft.core.settings import BackboneSettings
from autopeft.core.shape import Shape
from autopeft.method.sites import shape_of
from autopeft.model.hub import locate, quiet, unreachable
from autopeft.model.shared import Loaded, in_dtype

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

TASK_TYPES = {
    "text-classification": "AutoModelForSequenceClassification",
    "image-classification": "AutoModelForImageClassification",
    "causal-lm": "AutoModelForCausalLM",
    "seq2seq-lm": "AutoModelForSeq2SeqLM",
}
_WEIGHTS = ("*.safetensors", "*.bin", "*.safetensors.index.json", "*.bin.index.json")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_BFLOAT16_FLAGS = {"amx_bf16", "bf16"}
_HEAD_SEED = 0


@dataclass(frozen=True)
class Backbone:
    """A model in the form that its settings ask for.

    Attributes:
        model: in eval mode; every parameter is on `device`.
        tokenizer: None on the meta device.
        modules_to_save: paths of the modules that are trained whole whatever the configuration:
            the task head, and the pooler that feeds it.
        shape: of the pretrained part.
        dtype: of the parameters that are not quantized.
        device: `meta` for a model without weights.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    modules_to_save: tuple[str, ...]
    shape: Shape
    dtype: torch.dtype
    device: torch.device


def load_backbone(
    reference: str,
    task_type: str,
    settings: BackboneSettings,
    *,
    n_labels: int,
    device: str = "auto",
) -> Backbone:
    """The pretrained model with a fresh head, the same in every process.

    On the CPU the weights of a model that is not quantized are mapped from a file, which the
    processes of a node share; a process that writes to them gets pages of its own.

    Args:
        reference: id of the hub, folder, or `package:NAME/FOLDER` inside an installed package.
        task_type: `text-classification`.
        settings: precision, quantization, checkpointing.
        n_labels: outputs of the head.
        device: `auto` is CUDA where there is one, else the CPU.

    Raises:
        StudyError: there is no such model, it has no weights, or it does not serve the task.
    """
    target = target_device(device)
    dtype = _dtype(settings, fast_dtype(target))
    source = _source(reference, needs_weights=True)
    meta = meta_backbone(reference, settings, task_type=task_type, n_labels=n_labels)
    arguments: dict[str, Any] = {
        "config": meta.model.config,
        "dtype": dtype,
        "device_map": {"": target},
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,
    }
    load = partial(_loaded, task_type, arguments, meta.modules_to_save)
    if settings.quantization != "none":
        arguments["quantization_config"] = _quantization(settings, dtype, meta.modules_to_save)
    shares = settings.quantization == "none" and target.type == "cpu"
    model, _ = load(in_dtype(source, meta.model, dtype, load) if shares else source)
    model.name_or_path = model.config.name_or_path = source
    tokenizer = load_tokenizer(reference)
    for part in (model.config, model.config.get_text_config()):
        part.pad_token_id = tokenizer.pad_token_id
    if settings.quantization == "nf4":
        _keep_4bit_layout(model)
    model = _finish(model, settings)
    return Backbone(model, tokenizer, meta.modules_to_save, meta.shape, dtype, target)


def load_tokenizer(reference: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model; it pads on the right, with the end token if it has no other.

    Its `model_max_length` is at most the number of positions of the model.

    Raises:
        StudyError: there is none.
    """
    source = _source(reference, needs_weights=False)
    with quiet():
        config = _pretrained(transformers.AutoConfig, source, {})
        tokenizer = _pretrained(transformers.AutoTokenizer, source, {})
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise StudyError(f"{reference!r} has no vocabulary for its tokenizer", "model")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    tokenizer.model_max_length = min(tokenizer.model_max_length, positions or sys.maxsize)
    return tokenizer


def meta_backbone(
    reference: str,
    settings: BackboneSettings,
    *,
    task_type: str | None = None,
    n_labels: int = 2,
    device: str | None = None,
) -> Backbone:
    """The model without weights, from its `config.json` alone.

    Args:
        reference: as in `load_backbone`; a folder with only `config.json` serves.
        settings: the precision is applied, quantization is not.
        task_type: a key of `TASK_TYPES`; None means the one that the checkpoint was made for,
            classification of texts where that says nothing.
        n_labels: outputs of the head.
        device: where the model is to run, which decides what `dtype: auto` is; None takes the
            precision in which the checkpoint is stored.

    Raises:
        StudyError: there is no such model, or it does not serve the task.
    """
    source = _source(reference, needs_weights=False)
    with quiet():
        config = _pretrained(transformers.AutoConfig, source, {"num_labels": n_labels})
    task_type = task_type or task_type_of(config)
    if task_type not in TASK_TYPES:
        raise StudyError(unknown("task type", task_type, TASK_TYPES), "task.type")
    stored = config.dtype or torch.float32
    dtype = _dtype(settings, stored if device is None else fast_dtype(torch.device(device)))
    model = _from_config(config, task_type, settings, dtype)
    return Backbone(model, None, head_of(model), shape_of(model), dtype, torch.device("meta"))


def task_type_of(config: PreTrainedConfig) -> str:
    """The task that a checkpoint was made for, by its architecture or else by its type."""
    name = (config.architectures or [""])[0]
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


def check_weights(reference: str) -> None:
    """Checks that a local reference holds a model with weights; a hub id is taken on trust.

    Raises:
        StudyError: no such folder or package, or no `config.json` or no weights in it.
    """
    _source(reference, needs_weights=True)


def target_device(name: str) -> torch.device:
    """The device called `name`; `auto` is CUDA where there is one, else the CPU.

    Raises:
        StudyError: neither the CPU nor a CUDA device is called so.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise StudyError(unknown("device", name, ("auto", "cpu", "cuda")), "device")
    return torch.device(name)


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where `device` multiplies it faster than float32, else that.

    A CUDA device that is not in this machine counts as one that does, a CPU outside Linux as one
    that does not.
    """
    if device.type == "cuda":
        native = not torch.cuda.is_available() or torch.cuda.get_device_capability(device)[0] >= 8
    else:
        cpuinfo = Path("/proc/cpuinfo")
        on_linux = device.type == "cpu" and cpuinfo.is_file()
        native = on_linux and has_fast_bfloat16(cpuinfo.read_text(encoding="utf-8"))
    return torch.bfloat16 if native else torch.float32


def has_fast_bfloat16(cpuinfo: str) -> bool:
    """Whether a processor, as Linux describes it, multiplies bfloat16 faster than float32.

    With `avx512_bf16` AMD's do, and Intel's take twice as long; those need `amx_bf16`.
    """
    words = set(cpuinfo.split())
    return bool(_BFLOAT16_FLAGS & words) or {"AuthenticAMD", "avx512_bf16"} <= words


def _dtype(settings: BackboneSettings, automatic: torch.dtype) -> torch.dtype:
    """The precision of the settings; `automatic` where they leave it open."""
    return automatic if settings.dtype == "auto" else _DTYPES[settings.dtype]


def _source(reference: str, *, needs_weights: bool) -> str:
    """The folder or the id to load from, checked as far as it is local."""
    path = locate(reference, "model")
    if path is None:
        return reference
    if not (path / "config.json").is_file():
        raise StudyError(f"{str(path)!r} holds no config.json, so it is no model", "model")
    if needs_weights and not any(found for name in _WEIGHTS for found in path.glob(name)):
        raise StudyError(f"{str(path)!r} holds no weights (*.safetensors or *.bin)", "model")
    return str(path)


def _loaded(
    task_type: str, arguments: Mapping[str, Any], head: Sequence[str], source: str
) -> Loaded:
    """A model with its weights and a fresh head, and what is missing in `source`."""
    auto = getattr(transformers, TASK_TYPES[task_type])
    with quiet(), _seeded():
        model, info = _pretrained(auto, source, arguments)
    _check_loaded(info, head)
    return model, info


def _pretrained(auto: Any, source: str, arguments: Mapping[str, Any]) -> Any:
    """`auto.from_pretrained` whose errors are those of a study."""
    try:
        return auto.from_pretrained(source, **arguments)
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, OSError) and not Path(source).exists():
            raise unreachable(source, error, "model") from error
        raise StudyError(f"{source!r} cannot be used: {_first_line(error)}", "model") from error


def _from_config(
    config: PreTrainedConfig, task_type: str, settings: BackboneSettings, dtype: torch.dtype
) -> PreTrainedModel:
    """The model on the meta device, without caches for generation."""
    for part in (config, config.get_text_config()):
        part.use_cache = False
    try:
        with torch.device("meta"):
            auto = getattr(transformers, TASK_TYPES[task_type])
            return _finish(auto.from_config(config, dtype=dtype), settings)
    except ValueError as error:
        reason = f"a model of type {config.model_type!r} does not serve {task_type!r}"
        raise StudyError(f"{reason}: {_first_line(error)}", "model") from error


def _finish(model: PreTrainedModel, settings: BackboneSettings) -> PreTrainedModel:
    """The model in eval mode, checkpointed if its settings say so."""
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.disable_input_require_grads()  # else backward runs down to the first layer
    return model.eval()


def _quantization(settings: BackboneSettings, dtype: torch.dtype, keep: Sequence[str]) -> Any:
    """Settings of bitsandbytes that leave the modules `keep` as they are."""
    return transformers.BitsAndBytesConfig(
        load_in_4bit=settings.quantization == "nf4",
        load_in_8bit=settings.quantization == "int8",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=list(keep),
    )


def _keep_4bit_layout(model: nn.Module) -> None:
    """Holds bitsandbytes back from repacking weights at the first evaluation on some CPUs.

    The other layout is for inference: it has rounded scales, no gradient and no exact way back.
    """
    from bitsandbytes.nn import Linear4bit  # takes a second, and few backbones need it

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


@contextmanager
def _seeded() -> Iterator[None]:
    """The same random numbers inside the block in every process, the old state after it."""
    with torch.random.fork_rng():
        torch.manual_seed(_HEAD_SEED)
        yield


def _check_loaded(info: Mapping[str, Iterable[Any]], head: Sequence[str]) -> None:
    """Refuses a checkpoint that leaves any module but the head with random weights."""
    mismatched = {key[0] if isinstance(key, tuple) else key for key in info["mismatched_keys"]}
    fresh = sorted(
        key
        for key in {*info["missing_keys"], *mismatched}
        if not any(key.startswith(f"{name}.") for name in head)
    )
    if fresh:
        raise StudyError(
            f"the checkpoint lacks {len(fresh)} tensors of the backbone, first {fresh[0]!r}",
            "model",
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
