"""What stands beside the tensors in every folder: all that transformers reads but the weights."""

from __future__ import annotations

import copy
import json
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from autopeft.model.backbone import Backbone
from autopeft.model.hub import quiet


def write_companions(backbone: Backbone, folder: Path) -> None:
    """Writes the config of the model, how it generates, and its tokenizer or processor.

    The config has the names of the classes and the token of padding. Generation uses a cache again,
    which a backbone in training does without.
    """
    model, reader = backbone.model, backbone.reader
    config = copy.deepcopy(model.config)
    config.architectures, config.dtype = [type(model).__name__], backbone.dtype
    for part in (config, config.get_text_config()):
        if getattr(part, "use_cache", None) is False:
            part.use_cache = True
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # of the weights in memory, not of those that are loaded
    with quiet():
        config.save_pretrained(folder)
        if model.can_generate():
            settings = copy.deepcopy(model.generation_config)
            if settings.pad_token_id is None:
                settings.pad_token_id = config.get_text_config().pad_token_id
            settings.save_pretrained(folder)
        if reader is not None:
            reader.save_pretrained(folder)
    if isinstance(reader, PreTrainedTokenizerBase):
        _for_any_version(reader, folder / "tokenizer_config.json")


def _for_any_version(tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Names the class and the inputs of a tokenizer as transformers 4 knows them, too."""
    document = json.loads(path.read_text(encoding="utf-8"))
    if document.get("tokenizer_class") == "TokenizersBackend":
        document["tokenizer_class"] = "PreTrainedTokenizerFast"
    document["model_input_names"] = tokenizer.model_input_names
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False), encoding="utf-8")
