"""The peak memory of a language model that answers prompts, from shapes alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from autopeft.core.config import PeftConfig
from autopeft.memory.live_bytes import Live
from autopeft.memory.predict import Memory, on_meta
from autopeft.model.backbone import Backbone
from autopeft.model.head import chooses_positions
from autopeft.model.positions import positions


def predict_answering(
    backbone: Backbone,
    config: PeftConfig,
    *,
    batch_size: int,
    sequence_length: int,
    new_tokens: int,
    device: str = "cuda",
) -> Memory:
    """The peak of an evaluation between steps of a training in which the model gives answers.

    Prompts and answers of a batch have as many tokens as a micro-batch of the training, or are one
    row, and all of them find positions in the model. Longest are the keys and values in the last
    pass, which copies those of one layer after another to add a token. Evaluations without answers
    take no more than a step of the training: what they run is its forward pass, on as many tokens.

    Args:
        backbone: as in `predict_memory`.
        config: what is trained.
        batch_size: sequences of a micro-batch of the training.
        sequence_length: tokens of the longest of them, and of the longest prompt.
        new_tokens: of the longest answer, at least 1.
        device: `cuda` or `cpu`.

    Raises:
        StudyError: as `predict_memory`.
        AttachError: as `predict_memory`.
    """
    longest, new_tokens = _placed(backbone.model, sequence_length, new_tokens)
    with on_meta(backbone, [config], device, padded=True) as stage, torch.no_grad():
        optimizers = stage.optimizers(device)
        stage.model.eval()
        stage.live.restart()
        (member,) = stage.pack.members
        for rows, prompt in _batches(batch_size * sequence_length, longest, new_tokens):
            _answer(
                _Asked(stage.model, rows, prompt, caches=member.in_cache), new_tokens, stage.live
            )
        del optimizers
    return Memory.at_peak(stage.live, device)


def _placed(model: PreTrainedModel, prompt: int, new_tokens: int) -> tuple[int, int]:
    """Tokens of the longest prompt and of its answer, for which a model has positions."""
    most = positions(model, writes=True)
    if model.config.is_encoder_decoder:
        return prompt, min(new_tokens, most)
    new = min(new_tokens, most - 1)
    return min(prompt, most - new), new


def _answer(asked: _Asked, new_tokens: int, live: Live) -> None:
    """The first pass of an answer and the last one; without a cache the last reads everything."""
    last = asked.first + new_tokens - 1
    if not asked.caches:
        asked.read(last)
        return
    asked.read(asked.first)
    if new_tokens > 1:
        with live.overlooking():
            cache = asked.read(last - 1)
        asked.read(1, last - 1, cache)


def _batches(max_tokens: int, longest: int, new_tokens: int) -> Iterator[tuple[int, int]]:
    """The rows of a batch of the longest prompts, and of the next shorter ones, with their tokens.

    Of the latter there is one row more, and tokens are rounded up. More rows of even shorter
    prompts have no more tokens of prompts and answers together, see `by_length`.
    """
    rows = max(1, max_tokens // (longest + new_tokens))
    yield rows, longest
    shorter = -(-max_tokens // (rows + 1)) - new_tokens
    if shorter > 0:
        yield rows + 1, shorter


class _Asked:
    """A batch of prompts.

    Args:
        model: in eval mode.
        rows: prompts.
        tokens: of each.
        caches: whether keys and values are kept.

    Attributes:
        first: tokens that the first pass reads of what it is to continue.
    """

    def __init__(self, model: PreTrainedModel, rows: int, tokens: int, *, caches: bool) -> None:
        self._model, self._rows, self.caches = model, rows, caches
        self._given: dict[str, Any]
        if model.config.is_encoder_decoder:
            texts = {"input_ids": self._blank(tokens), "attention_mask": self._blank(tokens)}
            encoded = model.get_encoder()(**texts)
            self._given = {"encoder_outputs": encoded, "attention_mask": texts["attention_mask"]}
            self._reads, self.first = "decoder_input_ids", 1
        else:
            self._given = {"logits_to_keep": 1} if chooses_positions(model) else {}
            self._reads, self.first = "input_ids", tokens

    def read(self, tokens: int, after: int = 0, cache: Any = None) -> Any:
        """The cache after a pass that reads so many tokens of each row and says the next.

        Args:
            tokens: that are read.
            after: so many that are in the cache.
            cache: keys and values of those; None where there are none yet.
        """
        given = {self._reads: self._blank(tokens), "attention_mask": self._blank(after + tokens)}
        given |= self._given
        outputs = self._model(**given, past_key_values=cache, use_cache=self.caches)
        outputs.logits[:, -1].to(copy=True, dtype=torch.float32).argmax(-1)
        return outputs.past_key_values

    def _blank(self, tokens: int) -> Tensor:
        return torch.empty(self._rows, tokens, dtype=torch.int64, device="meta")
