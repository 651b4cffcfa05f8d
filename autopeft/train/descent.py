"""The optimisation of one configuration, from rung to rung."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from autopeft.core.errors import DivergenceError
from autopeft.core.order import Order
from autopeft.core.report import TRAINED
from autopeft.core.settings import TrainSettings
from autopeft.model.head import Criterion
from autopeft.task.batches import Encoded, shuffled

_CHECK_EVERY = 16


class Descent:
    """AdamW on the tensors of a configuration, whose loss somebody else computes and sends back.

    Args:
        groups: what is optimised, by learning rate.
        examples: the training split.
        criterion: what is trained for.
        settings: learning rate, schedule, batch size.
        order: its last rung sets the length of the schedule, its seed the order of the examples.

    Attributes:
        step: optimizer steps taken.
        rungs: epochs after which reports are still due; the last alone where nothing is trained.
        rows: examples of the micro-batch that is to come.
    """

    def __init__(
        self,
        groups: Mapping[float, Sequence[nn.Parameter]],
        examples: Encoded,
        criterion: Criterion,
        settings: TrainSettings,
        order: Order,
    ) -> None:
        self.step = 0
        self._parameters = [weight for group in groups.values() for weight in group]
        self._rates, self._settings = list(groups), settings
        self._criterion, self._importance = criterion, examples.importance
        self._weights = examples.weights(criterion) * (
            1.0 if self._importance is None else self._importance
        )
        self.rungs = list(order.ahead if self._parameters else order.ahead[-1:])
        together = settings.batch_size * settings.gradient_accumulation_steps
        self._epoch = math.ceil(len(examples) / together)
        self._total = self._steps(order.rungs[-1])
        on_cpu = all(p.device.type == "cpu" for p in self._parameters)
        self._optimizer = torch.optim.AdamW(
            [{"params": list(group), "lr": rate} for rate, group in groups.items()],
            weight_decay=settings.weight_decay,
            fused=on_cpu or None,
        )
        generator = torch.Generator().manual_seed(order.seed)
        self._batches = shuffled(examples.lengths, together, generator)
        self._batch = self._micro_batches()
        self._learned = 0
        self._losses: list[Tensor] = []
        self._first, self._seconds = 0, 0.0
        self._rate = settings.learning_rate

    @property
    def rung(self) -> float:
        return self.rungs[0]

    @property
    def rows(self) -> Tensor:
        return self._batch[self._learned]

    @property
    def is_at_rung(self) -> bool:
        """Whether a report is due, as it always is where nothing is trained."""
        has_moved = self.step > self._first and self.step >= self._steps(self.rung)
        return has_moved or not self._parameters

    @property
    def is_at_last_rung(self) -> bool:
        """Whether the next report is the last."""
        return len(self.rungs) == 1

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The share of a micro-batch, a scalar, in the mean loss of its batch.

        Args:
            outputs: of the model, (rows, …).
            targets: (rows, …).
        """
        smoothing = self._settings.label_smoothing_factor
        losses = self._criterion.losses(outputs, targets, smoothing)
        if self._importance is not None:
            losses = losses * self._importance[self.rows].to(losses.device)
        return losses.sum() / max(1e-6, self._weights[torch.cat(tuple(self._batch))].sum().item())

    def learn(self, loss: Tensor, seconds: float) -> None:
        """Takes note of what a micro-batch gave; after the last one of a batch, one step.

        Args:
            loss: what `loss` returned; its gradients are in place.
            seconds: that the micro-batch took.

        Raises:
            DivergenceError: the loss is no longer finite.
        """
        if self._learned:
            self._losses[-1] += loss.detach()
        else:
            self._losses.append(loss.detach().clone())
        self._learned += 1
        self._seconds += seconds
        if self._learned == len(self._batch):
            self._take_step()
        if self.is_at_rung or (not self._learned and self.step % _CHECK_EVERY == 0):
            self._check()

    def forget(self) -> None:
        """Begins the batch anew, as if none of it had been learned."""
        self._optimizer.zero_grad()
        if self._learned:
            self._losses.pop()
        self._learned = 0

    def state_dict(self) -> dict[str, Tensor]:
        """What `load_state_dict` goes on from, right after a report; shapes are the optimizer's."""
        moments = self._optimizer.state_dict()["state"]
        named = {f"{i}.{name}": t for i, of in moments.items() for name, t in of.items()}
        return {"step": torch.tensor(self.step), **named}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Goes on at a rung from where another descent with the same order was."""
        self.step = self._first = int(state["step"])
        moments: dict[int, dict[str, Tensor]] = defaultdict(dict)
        for key, tensor in state.items():
            index, _, name = key.partition(".")
            if name:
                moments[int(index)][name] = tensor
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": dict(moments), "param_groups": groups})
        for _ in range(self.step):
            self._batch = self._micro_batches()

    def report(self) -> dict[str, float]:
        """The means since the last report; the next rung is due from now on.

        There is no `train_loss` where nothing is trained, as `trained_elements` says.
        """
        self.rungs.pop(0)
        steps = self.step - self._first
        metrics = {
            TRAINED: float(sum(p.numel() for p in self._parameters)),
            "learning_rate": self._rate,
            "train_seconds": self._seconds,
            "epoch_seconds": self._seconds / max(1, steps) * self._epoch,
        }
        if self._losses:
            metrics["train_loss"] = torch.stack(self._losses).mean().item()
        self._losses.clear()
        self._first, self._seconds = self.step, 0.0
        return metrics

    def _steps(self, epochs: float) -> int:
        return max(1, round(epochs * self._epoch))

    def _take_step(self) -> None:
        factor = self._factor()
        self._rate = self._settings.learning_rate * factor
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        nn.utils.clip_grad_norm_(self._parameters, self._settings.max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.step += 1
        self._batch, self._learned = self._micro_batches(), 0

    def _micro_batches(self) -> Sequence[Tensor]:
        """The rows of the coming batch, as many at a time as are computed together."""
        return next(self._batches).split(self._settings.batch_size)

    def _factor(self) -> float:
        """The share of the learning rate at the coming step: a ramp, then the schedule."""
        warmup = math.ceil(self._settings.warmup_ratio * self._total)
        if self.step < warmup:
            return (self.step + 1) / (warmup + 1)
        done = min(1.0, (self.step - warmup) / max(1, self._total - warmup))
        if self._settings.lr_scheduler_type == "linear":
            return 1 - done
        if self._settings.lr_scheduler_type == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        return 1.0

    def _check(self) -> None:
        finite = torch.stack(self._losses).isfinite().tolist()
        if not all(finite):
            index = finite.index(False)
            value = self._losses[index].item()
            raise DivergenceError(f"loss is {value} at step {self._first + index + 1}")
