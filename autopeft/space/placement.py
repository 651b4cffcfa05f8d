"""The vocabulary of placements: which options a method has, what each expects, its default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from autopeft.core.errors import SpaceError, unknown
from autopeft.core.shape import ATTENTION_ROLES, FFN_ROLES, ROLES

SITES = (*ATTENTION_ROLES, *FFN_ROLES, *(r for r in ROLES if "." in r))


@dataclass(frozen=True)
class Option:
    """One option of a method.

    Attributes:
        expects: what a value must be, as an error says it.
        accepts: whether a value is of that kind.
        default: the value where the option is left out; None where it must be given.
        canonical: the one form of equal values.
    """

    expects: str
    accepts: Callable[[Any], bool]
    default: Any = None
    required: bool = False
    canonical: Callable[[Any], Any] = lambda value: value

    def check(self, value: Any, where: str) -> Any:
        """The value in canonical form.

        Raises:
            SpaceError: the value is of another kind.
        """
        if not self.accepts(value):
            raise SpaceError(f"must be {self.expects}, got {_shown(value)}", where)
        try:
            return self.canonical(value)
        except SpaceError as error:
            raise error.inside(where) from None


@dataclass(frozen=True)
class MethodOptions:
    """What a placement of a method may say.

    Attributes:
        size: the option whose value 0 means absent; None for a method without a size.
        complete: fills in options that follow from others, once the size is a number.
    """

    size: str | None
    options: Mapping[str, Option]
    complete: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda options: options


def _shown(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else repr(value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _one_of(names: tuple[str, ...], default: str) -> Option:
    return Option(f"one of {', '.join(names)}", lambda v: v in names, default)


def _sites(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and all(isinstance(site, str) for site in value)


def _ordered(value: tuple[str, ...]) -> tuple[str, ...]:
    for site in value:
        if site not in SITES:
            raise SpaceError(unknown("site", site, SITES))
    return tuple(sorted(set(value), key=SITES.index))


_SIZE = Option(
    "a positive integer, 0 (absent) or fill",
    lambda v: _whole(v) or v == "fill",
    required=True,
)


def _scaled_by_two(lora: Mapping[str, Any]) -> Mapping[str, Any]:
    """LoRA whose `lora_alpha`, where none is given, makes the scale 2 whatever the rank."""
    if lora["lora_alpha"] is not None or lora["r"] == "fill":
        return lora
    return {**lora, "lora_alpha": 2.0 * lora["r"]}


METHODS: Mapping[str, MethodOptions] = {
    "lora": MethodOptions(
        "r",
        {
            "targets": Option("a list of sites", _sites, ("q", "v"), canonical=_ordered),
            "r": Option(_SIZE.expects, _SIZE.accepts, 8),
            "lora_alpha": Option(
                "a positive number, or null for 2r",
                lambda v: v is None or (_number(v) and v > 0),
                canonical=lambda v: v if v is None else float(v),
            ),
            "lora_dropout": Option(
                "a number from 0 up to 1", lambda v: _number(v) and 0 <= v < 1, 0.0, canonical=float
            ),
        },
        _scaled_by_two,
    ),
    "adapter": MethodOptions(
        "size",
        {
            "form": _one_of(("sequential", "parallel"), "sequential"),
            "at": _one_of(("attention", "ffn", "both"), "ffn"),
            "size": _SIZE,
            "activation": _one_of(("relu", "gelu"), "relu"),
            "bias": Option("true or false", lambda v: isinstance(v, bool), True),
            "scale": Option(
                "a positive number", lambda v: _number(v) and v > 0, 1.0, canonical=float
            ),
        },
    ),
    "prefix": MethodOptions("length", {"length": _SIZE}),
    "bitfit": MethodOptions(None, {}),
}


class InPython:
    """A placement in Python; an option left out keeps its default."""

    method: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        """The placement as a document of the DSL."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return {"method": self.method, **{k: v for k, v in given.items() if v is not None}}


@dataclass(frozen=True)
class Lora(InPython):
    """LoRA (Hu et al. 2021): `h + lora_alpha / r · B A x` beside the linears at `targets`."""

    method: ClassVar[str] = "lora"
    targets: Any = None
    r: Any = None
    lora_alpha: Any = None
    lora_dropout: Any = None
    where: Any = None


@dataclass(frozen=True)
class Adapter(InPython):
    """A bottleneck after a sublayer (Houlsby et al. 2019) or beside it (He et al. 2022)."""

    method: ClassVar[str] = "adapter"
    size: Any = None
    form: Any = None
    at: Any = None
    activation: Any = None
    bias: Any = None
    scale: Any = None
    where: Any = None


@dataclass(frozen=True)
class Prefix(InPython):
    """Trained keys and values before those of the text (Li and Liang 2021)."""

    method: ClassVar[str] = "prefix"
    length: Any = None
    where: Any = None


@dataclass(frozen=True)
class BitFit(InPython):
    """Trains the biases that the backbone has (Ben Zaken et al. 2022)."""

    method: ClassVar[str] = "bitfit"
    where: Any = None
