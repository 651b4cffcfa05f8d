"""Forward passes of a pack that leave out what its frozen lower layers would only repeat."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from autopeft.method.pack import Pack
from autopeft.train.backbone import Backbone
from autopeft.train.batches import Batch, Encoded
from autopeft.train.hidden import HiddenStates
from autopeft.train.lower import enter, started_at
from autopeft.train.offload import offloaded


class Passes:
    """Runs the members of a pack on a backbone from their lowest tuned layer on.

    The layers below compute each example once, without dropout, as long as `hidden` keeps it.

    Args:
        backbone: carries nothing yet.
        depth: lowest layer that any member tunes; 0 runs the whole model.
        hidden: keeps what enters that layer.
        form: tells this backbone from others in `hidden`.
        offloads: whether saved activations live on the host.

    Attributes:
        pack: who is on the backbone.
    """

    def __init__(
        self,
        backbone: Backbone,
        depth: int,
        hidden: HiddenStates,
        form: Hashable,
        *,
        offloads: bool = False,
    ) -> None:
        self.backbone, self.pack = backbone, Pack(backbone.model, backbone.modules_to_save)
        self._depth, self._hidden, self._form, self._offloads = depth, hidden, form, offloads

    def logits(self, split: Encoded, rows: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The logits of some examples, (rows, labels) in float32, and their labels, (rows,).

        Args:
            split: where the examples are from.
            rows: which ones, (rows,), those of each member side by side.
            sizes: how many are whose.
        """
        batch = split.batch(rows, self.backbone.device)
        model = self.backbone.model
        with ExitStack() as inside:
            if self._depth:
                states = self._entering(split, rows, batch)
                inside.enter_context(started_at(model, self._depth, states))
            self.pack.split(sizes)
            if self._offloads and torch.is_grad_enabled():
                inside.enter_context(offloaded(self._held(batch)))
            return model(**batch.inputs).logits.float(), batch.labels

    def _entering(self, split: Encoded, rows: Tensor, batch: Batch) -> Tensor:
        """What enters the lowest tuned layer, (rows, tokens of the batch, width)."""

        def compute(missing: Tensor) -> Tensor:
            inputs = split.batch(missing, self.backbone.device).inputs
            return enter(self.backbone.model, self._depth, inputs)

        key = (self._form, self._depth, split.name)
        tokens = batch.inputs["input_ids"].shape[1]
        device = self.backbone.device
        return self._hidden.rows(key, split.lengths, rows, compute, device, n_tokens=tokens)

    def _held(self, batch: Batch) -> list[Tensor]:
        """What is on the device anyway."""
        model = self.backbone.model
        trained = [t for member in self.pack.members for t in member.trainable().values()]
        return [*model.parameters(), *model.buffers(), *trained, *batch.inputs.values()]
