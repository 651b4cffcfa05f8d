"""What a language model says by itself, with a member of a pack on it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, PreTrainedTokenizerBase

from autopeft.method.member import Member
from autopeft.model.hub import quiet
from autopeft.task.answers import Answers, said
from autopeft.task.batches import by_length
from autopeft.train.passes import Passes


def generated(
    passes: Passes, member: Member, answers: Answers, rows: Tensor, max_tokens: int
) -> list[str]:
    """The answers to some prompts, each time with the likeliest next token.

    Args:
        passes: with the member in their pack.
        member: who answers.
        answers: what is asked.
        rows: of which examples, (rows,).
        max_tokens: of prompts and answers at a time, padding included.
    """
    backbone = passes.backbone
    model, tokenizer = backbone.model, backbone.reader
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    settings = GenerationConfig(
        do_sample=False,
        use_cache=member.in_cache,
        num_beams=1,
        max_new_tokens=answers.max_new_tokens,
        eos_token_id=list(answers.ends) or None,
        pad_token_id=tokenizer.pad_token_id,
    )
    two_stacks = model.config.is_encoder_decoder
    lengths = torch.tensor([len(answers.prompts[row]) for row in rows.tolist()])
    texts = [""] * len(rows)
    for places in by_length(lengths + answers.max_new_tokens, max_tokens):
        prompts = [answers.prompts[row] for row in rows[places].tolist()]
        inputs = _padded(prompts, tokenizer.pad_token_id, at_end=two_stacks)
        inputs = {name: tensor.to(backbone.device) for name, tensor in inputs.items()}
        passes.pack.split([len(places) if m is member else 0 for m in passes.pack.members])
        with quiet():
            ids = model.generate(**inputs, generation_config=settings)
        start = 0 if two_stacks else inputs["input_ids"].shape[1]
        for place, text in zip(places.tolist(), said(ids[:, start:], tokenizer), strict=True):
            texts[place] = text
    return texts


def _padded(prompts: Sequence[Tensor], pad: int, *, at_end: bool) -> dict[str, Tensor]:
    """Prompts as (prompts, tokens), padded in front, so that they end together, or at their end."""
    side = "right" if at_end else "left"
    return {
        "input_ids": pad_sequence(list(prompts), True, pad, side),
        "attention_mask": pad_sequence([torch.ones_like(p) for p in prompts], True, 0, side),
    }
