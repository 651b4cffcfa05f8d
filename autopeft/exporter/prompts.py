"""Prompts as HF peft has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel

from autopeft.exporter.exporter import Obstacle, Trained
from autopeft.exporter.translation import Tensors, Translation, values
from autopeft.method.registry import build
from autopeft.method.sites import layers_of


class Prompts(Translation):
    """Vectors before the embedded text: a prompt on all layers of a causal language model.

    The positions of the text are later there, which rotations do not tell.
    """

    kind = "prompt_tuning"
    methods: ClassVar[frozenset[str]] = frozenset({"prompt"})
    once: ClassVar[frozenset[str]] = methods

    @classmethod
    def obstacles(cls, trained: Trained) -> tuple[Obstacle, ...]:
        first, *others = trained.config.placements
        second = (Obstacle(each, "HF peft has one prompt in a folder") for each in others)
        return (*second, *(Obstacle(first, reason) for reason in _differences(trained)))

    @property
    def modules(self) -> Mapping[str, Tensors]:
        return {}

    def tensors(self) -> Tensors:
        return {"prompt_embeddings": values(self.sites[0])["vectors"]}

    def config(self, about: Mapping[str, Any]) -> Any:
        from peft import PromptTuningConfig  # takes seconds

        length, width = values(self.sites[0])["vectors"].shape
        own = {name: value for name, value in about.items() if name != "modules_to_save"}
        return PromptTuningConfig(
            num_virtual_tokens=length, token_dim=width, num_transformer_submodules=1, **own
        )


def _differences(trained: Trained) -> Iterator[str]:
    """What HF peft's prompt does otherwise than ours on this backbone."""
    model, placement = trained.model, trained.config.placements[0]
    n_layers = len(layers_of(model))
    if build(placement).options.deep or placement.layers != tuple(range(n_layers)):
        yield f"HF peft has prompts on all {n_layers} layers alone, which enter the first"
    if not type(model).__name__.endswith(("ForCausalLM", "LMHeadModel")):
        yield "HF peft's prompts are positions that a head reads, here a language model's alone"
    elif getattr(model.config, "sliding_window", None) is not None:
        yield "HF peft's prompts leave the window of attention"
    elif not _embeddings_are_all(model):
        yield "HF peft's prompts are changed before the first layer of this model"


@torch.no_grad()
def _embeddings_are_all(model: PreTrainedModel) -> bool:
    """Whether what is embedded enters the first layer, with no positions and no factor."""
    seen: list[torch.Tensor] = []
    first = model.get_submodule(layers_of(model)[0].path)
    hook = first.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    width = model.get_input_embeddings().embedding_dim
    vectors = torch.linspace(-1, 1, 3 * width, device=model.device).view(1, 3, width)
    vectors = vectors.to(model.dtype)
    try:
        model.base_model(inputs_embeds=vectors, use_cache=False)
    finally:
        hook.remove()
    return torch.equal(seen[0], vectors)
