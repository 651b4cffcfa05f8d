"""Small models whose weights follow from their names, alike under every version of any library."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import transformers
from torch import Tensor

_ENCODER = {
    "vocab_size": 32,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 16,
}
_LLAMA = {**_ENCODER, "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}
_GPT2 = {
    "vocab_size": 32,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "n_inner": 24,
    "n_positions": 16,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_DISTILBERT = {
    "vocab_size": 32,
    "dim": 16,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 24,
    "max_position_embeddings": 16,
}
_T5 = {"vocab_size": 32, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
_BART = {
    "vocab_size": 32,
    "d_model": 16,
    "max_position_embeddings": 16,
    **{f"{stack}_layers": 2 for stack in ("encoder", "decoder")},
    **{f"{stack}_attention_heads": 2 for stack in ("encoder", "decoder")},
    **{f"{stack}_ffn_dim": 24 for stack in ("encoder", "decoder")},
}
MODELS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "bert": ("Bert", _ENCODER),
    "roberta": ("Roberta", _ENCODER),
    "gpt2": ("GPT2", _GPT2),
    "llama": ("Llama", _LLAMA),
    "t5": ("T5", _T5),
    "bart": ("Bart", _BART),
    "xlm-roberta": ("XLMRoberta", _ENCODER),
    "distilbert": ("DistilBert", _DISTILBERT),
    "electra": ("Electra", {**_ENCODER, "embedding_size": 16}),
    "mistral": ("Mistral", _LLAMA),
    "mbart": ("MBart", _BART),
}
_IDS = torch.tensor([[7, 3, 21, 14, 30], [11, 28, 5, 9, 17]])


def small(name: str, form: str = "Model") -> transformers.PreTrainedModel:
    """A model in evaluation mode, whose class ends in `form`; attention is eager.

    Without a head BERT has no pooler.
    """
    kind, sizes = MODELS[name]
    config = getattr(transformers, f"{kind}Config")(**sizes)
    config._attn_implementation = "eager"
    options = (
        {"add_pooling_layer": False}
        if kind in ("Bert", "Roberta", "XLMRoberta") and form == "Model"
        else {}
    )
    model = getattr(transformers, f"{kind}{form}")(config, **options).eval()
    fill(model.named_parameters())
    return model


def fill(tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Gives tensors the values of their names; scales of norms are near 1."""
    for name, tensor in tensors:
        is_scale = name.endswith("weight") and tensor.dim() == 1
        tensor.data.copy_(value(name, tuple(tensor.shape)) + is_scale)


def value(name: str, shape: tuple[int, ...]) -> Tensor:
    """Numbers from -0.5 to 0.5 that follow from a name, in order of the rows."""
    draw = random.Random(name).random
    return torch.tensor([draw() - 0.5 for _ in range(torch.Size(shape).numel())]).view(shape)


def of_method(key: str, shape: tuple[int, ...], config: str) -> Tensor:
    """The values of a tensor of a method of AdapterHub.

    Factors are near 1, and what VeRA has as whole matrices is diagonal.
    """
    if key.endswith(("vera_D", "vera_B")):
        return torch.diag(value(key, shape[:1]))
    return value(key, shape) + (key.endswith(".m.weight") or "IA3Config" in config)


@torch.no_grad()
def output(model: transformers.PreTrainedModel) -> Tensor:
    """What a model says of two texts of equal length: last hidden states, or logits."""
    given = {"input_ids": _IDS}
    if model.config.is_encoder_decoder:
        given["decoder_input_ids"] = _IDS[:, 1:].flip(1)
    said: Tensor = model(**given)[0]
    return said
