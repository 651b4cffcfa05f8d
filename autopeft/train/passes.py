"""Forward passes of a pack that leave out what its frozen lower layers would only repeat."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from autopeft.method.pack import Pack
from autopeft.model.backbone import Backbone
from autopeft.model.lower_layers import enter, started_at
from autopeft.model.offload import offloaded
from autopeft.task.batches import Batch, Encoded
from autopeft.train.hidden import HiddenStates


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
        criterion: what is trained for.
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
        self.criterion = backbone.criterion
        self._depth, self._hidden, self._form, self._offloads = depth, hidden, form, offloads
        self._tokens: int | None = None

    def outputs(self, split: Encoded, rows: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
        """What counts of what the model returns for some examples, and their targets; (rows, …).

        Positions of which no target is judged may be left out.

        Args:
            split: where the examples are from.
            rows: which ones, (rows,), those of each member side by side.
            sizes: how many are whose.
        """
        batch = split.batch(rows, self.backbone.device, self.backbone.dtype)
        model = self.backbone.model
        with ExitStack() as inside:
            if self._depth:
                states = self._entering(split, rows, batch)
                inside.enter_context(started_at(model, self._depth, states))
            self.pack.split(sizes)
            if self._offloads and torch.is_grad_enabled():
                inside.enter_context(offloaded(self._held(batch)))
            inputs = self.criterion.inputs(model, batch.inputs, batch.labels)
            kept = self.criterion.kept(model, batch.labels)
            if kept is None:
                return self.criterion.outputs(model(**inputs)), batch.labels
            outputs = self.criterion.outputs(model(**inputs, logits_to_keep=kept))
            return outputs, batch.labels[:, kept]

    def _entering(self, split: Encoded, rows: Tensor, batch: Batch) -> Tensor:
        """What enters the lowest tuned layer, (rows, tokens of the batch, width).

        All images have as many tokens. The head alone may read one position of what the last layer
        returns, see `quicken`; then it is (rows, 1, width).
        """

        def compute(missing: Tensor) -> Tensor:
            inputs = split.batch(missing, self.backbone.device, self.backbone.dtype).inputs
            return enter(self.backbone.model, self._depth, inputs)

        key, device = (self._form, self._depth, split.name), self.backbone.device
        if self._tokens is None:
            sees = "input_ids" not in batch.inputs
            may_be_one = self._depth == len(self.backbone.shape.layers)
            found = compute(rows[:1]).shape[1] if sees or may_be_one else 0
            self._tokens = found if sees or found == 1 else 0
        if self._tokens:
            lengths = torch.full_like(split.lengths, self._tokens)
            return self._hidden.rows(key, lengths, rows, compute, device)
        tokens = batch.inputs["input_ids"].shape[1]
        return self._hidden.rows(key, split.lengths, rows, compute, device, n_tokens=tokens)

    def _held(self, batch: Batch) -> list[Tensor]:
        """What is on the device anyway."""
        model = self.backbone.model
        trained = [t for member in self.pack.members for t in member.trainable().values()]
        return [*model.parameters(), *model.buffers(), *trained, *batch.inputs.values()]
