"""Models that come as one GGUF file, turned into folders that transformers loads."""

from __future__ import annotations

import copy
from importlib.util import find_spec
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel

from autopeft.core.errors import StudyError
from autopeft.model.cache import cached_folder, key_of
from autopeft.model.hub import quiet

SUFFIX = ".gguf"
_CONFIG = "config.json"
_ROOM = 8
"""Times as many bytes as the file, which has four bits a weight or more, take in float32."""


def gguf_file(path: Path) -> Path | None:
    """The GGUF file that a path stands for: itself, or the only one of a folder without a model.

    Raises:
        StudyError: a folder holds several.
    """
    if path.is_file():
        return path if path.suffix == SUFFIX else None
    files = sorted(path.glob(f"*{SUFFIX}"))
    if not files or (path / _CONFIG).is_file():
        return None
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise StudyError(f"{str(path)!r} holds several models, name one of {names}", "model")
    return files[0]


def _plain(model: PreTrainedModel) -> PreTrainedModel:
    """The model without the mark of its file, with which transformers does not save it."""
    config = copy.deepcopy(model.config)
    del config.quantization_config
    with torch.device("meta"):
        plain = type(model)(config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain


def as_folder(file: Path) -> Path:
    """A folder with the weights of a GGUF file in float32, its configuration and its tokenizer.

    It is made once on a node.

    Raises:
        StudyError: the package gguf is missing, the file is none that transformers reads, or the
            cache has no room.
    """
    if find_spec("gguf") is None:
        reason = "reading GGUF files needs the package gguf; install it with: pip install gguf"
        raise StudyError(reason, "model")
    stat = file.stat()

    def write(folder: Path) -> None:
        place = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
        try:
            with quiet():
                model = transformers.AutoModelForCausalLM.from_pretrained(**place, dtype="float32")
                tokenizer = transformers.AutoTokenizer.from_pretrained(**place)
                plain = _plain(model)
        except (ValueError, KeyError, NotImplementedError, RuntimeError, OSError) as error:
            line = str(error).strip().partition("\n")[0]
            raise StudyError(f"{str(file)!r} cannot be used: {line}", "model") from error
        with quiet():
            plain.save_pretrained(folder)
            tokenizer.save_pretrained(folder)

    key = key_of(str(file.resolve()), stat.st_size, stat.st_mtime_ns)
    folder = cached_folder("gguf", key, _ROOM * stat.st_size, write)
    if folder is None:
        reason = f"{str(file)!r} cannot be unpacked: AUTOPEFT_CACHE has no room for it"
        raise StudyError(reason, "model")
    return folder
