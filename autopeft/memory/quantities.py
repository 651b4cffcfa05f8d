"""What is known of a configuration before it is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from operator import attrgetter

from autopeft.core.config import PeftConfig, Placement, Settings, freeze
from autopeft.core.settings import TrainSettings
from autopeft.core.shape import Shape
from autopeft.memory.answering import predict_answering
from autopeft.memory.estimate import MemoryEstimate, estimates
from autopeft.memory.flops import count_flops
from autopeft.memory.predict import Memory, predict_memory
from autopeft.method.count import Elements, count, layer_elements
from autopeft.model.backbone import Backbone
from autopeft.objective.quantity import KNOWN, Known


@dataclass(frozen=True)
class Setting:
    """For which training a quantity is known.

    Attributes:
        backbone: on the meta device, in the precision of the training.
        sequence_length: tokens after which an example is cut, a bound of the longest.
        device: `cpu` or `cuda`.
        batch_size: sequences of a step; None leaves it to each configuration.
        new_tokens: of the longest answer that evaluations ask for; 0 where they ask for none.
    """

    backbone: Backbone
    sequence_length: int
    device: str
    batch_size: int | None = None
    new_tokens: int = 0

    @cached_property
    def memory(self) -> Callable[[PeftConfig], Memory]:
        """Predicts the memory of a training, of steps or answers, what takes more."""
        return lambda config: max((p(config) for p in self.predictions), key=attrgetter("peak"))

    @cached_property
    def predictions(self) -> Sequence[Callable[[PeftConfig], Memory]]:
        """Predicts what takes memory in a training, each once for those that need the same."""
        answers = partial(predict_answering, new_tokens=self.new_tokens)
        all_of_them = (predict_memory, answers) if self.new_tokens else (predict_memory,)
        return [self._once(predict) for predict in all_of_them]

    def _once(self, predict: Callable[..., Memory]) -> Callable[[PeftConfig], Memory]:
        @lru_cache(maxsize=4096)
        def traced(config: PeftConfig) -> Memory:
            return predict(
                self.backbone,
                config,
                batch_size=dict(config.train)["batch_size"],
                sequence_length=_padded(self.sequence_length, self.device),
                device=self.device,
            )

        return lambda config: traced(self.alike(config))

    def alike(self, config: PeftConfig) -> PeftConfig:
        """The configuration with only those settings of training that memory depends on."""
        settings = TrainSettings(**dict(config.train))
        repeats = min(settings.gradient_accumulation_steps, 2)  # more micro-batches need no more
        relevant = {
            "batch_size": self.batch_size or settings.batch_size,
            "gradient_accumulation_steps": repeats,
        }
        return replace(config.built, train=freeze(relevant))


def _padded(sequence_length: int, device: str) -> int:
    """Tokens of the longest batch, see `Encoded.batch`."""
    return sequence_length + (-sequence_length % 8 if device == "cuda" else 0)


def head_params(backbone: Backbone) -> int:
    """Elements of the modules that are trained whole."""
    return sum(
        parameter.numel()
        for path in backbone.modules_to_save
        for parameter in backbone.model.get_submodule(path).parameters()
    )


def known_quantities(setting: Setting, named: Iterable[str] = ()) -> Mapping[str, Known]:
    """How each known objective is computed, by name.

    Args:
        setting: of the training.
        named: those of packages that are wanted, beside autopeft's own.
    """
    head = head_params(setting.backbone)
    shape = setting.backbone.shape
    trainable = _trainable_params(shape)

    @lru_cache(maxsize=4096)
    def flops(architecture: PeftConfig) -> int:
        """Of one example in every epoch after the first, when the lower layers are done."""
        counted = count_flops(setting.backbone, architecture, 1, setting.sequence_length)
        return counted.training_step - counted.lower

    def memory(config: PeftConfig) -> int:
        return setting.memory(config).peak

    estimate = _estimated_memory(setting) if estimates(shape) else None
    added = {name: KNOWN[name].known for name in named if name in KNOWN.added}
    return {
        **{name: known(setting) for name, known in added.items() if known is not None},
        "trainable_params": Known(trainable),
        "stored_params": Known(lambda config: count(config, shape).stored + head),
        "peak_memory": Known(memory, slow=True, estimate=estimate),
        "training_flops": Known(lambda config: flops(config.built), slow=True),
    }


def _estimated_memory(setting: Setting) -> Callable[[PeftConfig], float]:
    """The most of what each prediction is estimated to be; the most of sums is no sum."""

    def peak(predict: Callable[[PeftConfig], Memory]) -> Callable[[PeftConfig], float]:
        return lambda config: predict(config).peak

    n_layers = len(setting.backbone.shape.layers)
    each = [MemoryEstimate(peak(p), n_layers, setting.alike) for p in setting.predictions]
    return lambda config: max(estimate(config) for estimate in each)


def _trainable_params(shape: Shape) -> Callable[[PeftConfig], int]:
    """What `count` finds, faster: what is counted of a layer is remembered."""

    @lru_cache(maxsize=65536)
    def elements(method: str, options: Settings, layer: int) -> Elements:
        return layer_elements(method, dict(options), shape.layers[layer])

    def trained(placement: Placement) -> int:
        by_layer = [
            elements(placement.method, placement.built, layer)
            for layer in placement.layers
            if layer < len(shape.layers)
        ]
        common = {name: n for each in by_layer for name, n in each.common.items()}
        return sum(each.own for each in by_layer) + sum(common.values())

    def trainable(config: PeftConfig) -> int:
        counts = [trained(placement) for placement in config.placements]
        last = max((max(p.layers, default=0) for p in config.placements), default=0)
        fits = all(counts) and last < len(shape.layers)
        return sum(counts) if fits else count(config, shape).trainable

    return trainable
