"""What HF peft is given in place of a configuration that it cannot express.

HF peft has no bottleneck adapters, one prefix length for a whole model, and no mix of a prefix with
anything else: `PeftMixedModel` takes LoRA, LoHa, LoKr, AdaLoRA, OFT and SHiRA. So everything that
it lacks becomes LoRA on the same layers with the nearest number of trained parameters:

- LoRA stays as it is: rank and alpha a module.
- An adapter of size s on the output of the feed-forward network becomes LoRA on the linear that
  ends it.
- A prefix of p positions becomes LoRA of rank p on the keys, which trains exactly as many
  parameters. Where it is the only method and stands on every layer, it is HF peft's own prefix,
  of the mean length.
- BitFit is the biases themselves with `requires_grad` set.

LoRA that meets LoRA on one module is one of their ranks' sum. The head is not part of it: both
sides train it whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from autopeft.core.config import PeftConfig, Placement
    from autopeft.method.registry import Placed
    from autopeft.method.sites import Layer

ALPHA = 2
"""Of a LoRA that stands for something else, as a multiple of its rank."""


@dataclass(frozen=True)
class Equivalent:
    """What is to be trained beside the head.

    Attributes:
        learning_rate: of the configuration.
        ranks: of LoRA by path of its linear.
        alphas: of LoRA by path of its linear.
        biases: paths of the linears and norms whose biases are trained.
        prefix: positions of HF peft's own prefix; 0 for none.
        description: what stands for what, for the reader of the results.
    """

    learning_rate: float
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    biases: Sequence[str] = ()
    prefix: int = 0
    description: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def peft_equivalent(config: PeftConfig, model: PreTrainedModel) -> Equivalent:
    """The closest that HF peft trains to `config` on `model`, which may be a weightless one."""
    from autopeft.method.registry import place
    from autopeft.method.sites import layers_of, shape_of

    rate, layers = dict(config.train)["learning_rate"], layers_of(model)
    prefix = _whole_prefix(config, len(layers))
    if prefix:
        return Equivalent(rate, prefix=prefix, description=f"prefix {prefix} on every layer")
    placed = place(config, shape_of(model))
    ranks: Counter[str] = Counter()
    alphas: dict[str, float] = {}
    for each in placed:
        for path, rank, alpha in _low_rank(each, layers[each.layer]):
            ranks[path] += rank
            alphas[path] = alphas.get(path, 0.0) + alpha
    biases = [_path(layers[p.layer], p.site.at) for p in placed if p.placement.method == "bitfit"]
    return Equivalent(rate, dict(ranks), alphas, biases, 0, _described(placed, layers))


def _whole_prefix(config: PeftConfig, n_layers: int) -> int:
    """The mean length of prefixes that stand on every layer with nothing else; 0 of others."""
    lengths = {
        layer: p["length"] for p in config.placements for layer in p.layers if p.method == "prefix"
    }
    alone = {p.method for p in config.placements} == {"prefix"} and len(lengths) == n_layers
    return max(1, round(sum(lengths.values()) / n_layers)) if alone else 0


def _low_rank(placed: Placed, layer: Layer) -> Iterable[tuple[str, int, float]]:
    """Path, rank and alpha of the LoRA that a placement becomes at one of its sites."""
    method, options = placed.placement.method, dict(placed.placement.options)
    if method == "lora":
        alpha = options["lora_alpha"]
        given = ALPHA * options["r"] if alpha is None else alpha
        yield layer.linears[placed.site.at].path, options["r"], given
    elif method in ("adapter", "prefix"):
        linear = layer.linears[placed.site.at]
        wide = linear.shape.inputs + linear.shape.outputs
        rank = max(1, round(sum(w.elements for w in placed.site.weights) / wide))
        yield linear.path, rank, ALPHA * rank


def _described(placed: Sequence[Placed], layers: Sequence[Layer]) -> str:
    """One clause a placement, such as `adapter on layers 3, 4 as lora r 13 on down`."""
    sites: dict[Placement, dict[str, None]] = {}
    for each in placed:
        low_rank = [rank for _, rank, _ in _low_rank(each, layers[each.layer])]
        what = f"lora r {low_rank[0]} on {each.site.at}" if low_rank else "biases"
        sites.setdefault(each.placement, {})[what] = None
    return (
        "; ".join(
            f"{p.method} on layers {', '.join(map(str, p.layers))} as {', '.join(names)}"
            for p, names in sites.items()
        )
        or "the head alone"
    )


def _path(layer: Layer, at: str) -> str:
    return layer.linears[at].path if at in layer.linears else at
