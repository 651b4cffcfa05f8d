"""The vocabulary of PEFT methods: what may be said of each, declared once, without mathematics.

The DSL, Python, the search, reports and exporters read these declarations. A new method is a class
here and in `DECLARATIONS`, and a file of mathematics in `method/`, named in its registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, ClassVar, TypeVar

from autopeft.core.config import LEARNING_RATE, Placement
from autopeft.core.errors import AutoPeftError, unknown
from autopeft.core.options import Flag, Name, Number, OneOf, Option, Sites, Size, Whole, option

Declared = TypeVar("Declared", bound="Declaration")


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What may be said of a placement of one method; an instance says it of one placement.

    The fields of a subclass are the options of the method, in the order in which they are decided.
    In Python an instance is a placement of the DSL: a value, a domain or, where left out, the kind
    of the option stands in each field. `closed` gives an instance in which all are values.

    Attributes:
        method: its name in documents and registries.
        takes_more: whether it has options beside those that are declared, in `own`.
        where: in which layers the placement stands; None where that is left out.
        learning_rate: of its tensors; None where it is that of the training.
    """

    method: ClassVar[str]
    takes_more: ClassVar[bool] = False
    where: Any = None
    learning_rate: float | None = option(Number(None, above=0, null="that of the training"))

    @classmethod
    @cache
    def options(cls) -> Mapping[str, Option]:
        """The options by name."""
        named = {f.name: f.default for f in fields(cls) if isinstance(f.default, Option)}
        rate = named.pop(LEARNING_RATE)
        return {**named, LEARNING_RATE: rate}

    @classmethod
    @cache
    def size_option(cls) -> str | None:
        """The option that says how big a placement is, if any."""
        return next((name for name, kind in cls.options().items() if isinstance(kind, Size)), None)

    @classmethod
    def completed(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """The options of a configuration, those filled in that follow from others."""
        return options

    @classmethod
    def said(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """What a configuration tells of the options: what follows from others is filled in.

        Null is left out, and so are defaults of options that came `later`.
        """
        kinds = cls.options()
        return {
            name: value
            for name, value in cls.completed(options).items()
            if value is not None and not (name in kinds and kinds[name].is_left_out(value))
        }

    @classmethod
    def closed(cls: type[Declared], options: Mapping[str, Any]) -> Declared:
        """The options of a configuration, checked and in canonical form; defaults are filled in.

        Raises:
            AutoPeftError: an option that is unknown, missing, impossible or still open.
        """
        more = {name: value for name, value in options.items() if name not in cls.options()}
        if more and not cls.takes_more:
            raise AutoPeftError(unknown("option", next(iter(more)), cls.options()))
        values: dict[str, Any] = {"own": tuple(sorted(more.items()))} if more else {}
        for name, kind in cls.options().items():
            try:
                values[name] = kind.check_closed(options.get(name, kind.default))
            except AutoPeftError as error:
                raise error.inside(name) from None
        return cls(**cls.completed(values))

    def to_dict(self) -> dict[str, Any]:
        """The placement as a document of the DSL, without what is left out."""
        said = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "where"}
        where = {} if self.where is None else {"where": self.where}
        given = {name: value for name, value in said.items() if not isinstance(value, Option)}
        return {"method": self.method, **given, **where}

    def words(self) -> str:
        """The closed options in a report: method, size, and what differs from the default."""
        rate = "" if self.learning_rate is None else f" lr {self.learning_rate:.2g}"
        return self._words() + rate

    def _words(self) -> str:
        """All but the learning rate."""
        size = self.size_option()
        said = [self.method] if size is None else [self.method, str(getattr(self, size))]
        for name, kind in self.options().items():
            value = getattr(self, name)
            if name not in (size, LEARNING_RATE) and value != kind.default:
                said.append(f"{name}={','.join(value) if isinstance(value, tuple) else value}")
        return " ".join(said)


@dataclass(frozen=True, kw_only=True)
class LowRank(Declaration):
    """A product of two narrow matrices beside the linears at `targets`.

    Without `lora_alpha` the factor is 2, whatever the rank. `lora_dropout` acts on the input.
    """

    targets: tuple[str, ...] = option(Sites(("q", "v")))
    r: int = option(Size(8))
    lora_alpha: float = option(Number(None, above=0, null="2r"))
    lora_dropout: float = option(Number(0.0, low=0, below=1))

    @classmethod
    def completed(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        alpha = options["lora_alpha"]
        return {**options, "lora_alpha": 2.0 * options["r"] if alpha is None else alpha}

    def _words(self) -> str:
        alpha = "" if self.lora_alpha == 2 * self.r else f" α{self.lora_alpha:g}"
        dropout = f" drop {self.lora_dropout:g}" if self.lora_dropout else ""
        return f"{self.method}[{','.join(self.targets)}] r{self.r}{alpha}{dropout}"


@dataclass(frozen=True, kw_only=True)
class Lora(LowRank):
    """LoRA (Hu et al. 2021): `h + lora_alpha / r · B A x` beside the linears at `targets`.

    Without `lora_alpha` the factor is 2, whatever the rank. `lora_dropout` acts on x. `use_rslora`
    divides by the root of r (Kalajdzievski 2023), `freeze_a` trains B alone (LoRA-FA, Zhang et al.
    2023), `use_dylora` trains the first of its ranks, as many as are drawn in every step (DyLoRA,
    Valipour et al. 2023), `loraplus_lr_ratio` is how many times the rate of A that of B is (LoRA+,
    Hayou et al. 2024), and `init_lora_weights: pissa` starts from the largest singular vectors of
    the weight (PiSSA, Meng et al. 2024).
    """

    method: ClassVar[str] = "lora"
    init_lora_weights: str = option(OneOf("default", ("default", "gaussian", "pissa"), later=True))
    use_rslora: bool = option(Flag(False, later=True))
    freeze_a: bool = option(Flag(False, later=True))
    use_dylora: bool = option(Flag(False, later=True))
    loraplus_lr_ratio: float = option(Number(1.0, above=0, later=True))

    def _words(self) -> str:
        flags = ("use_rslora", "freeze_a", "use_dylora")
        said = [name for name in flags if getattr(self, name)]
        said += [] if self.init_lora_weights == "default" else [self.init_lora_weights]
        said += [] if self.loraplus_lr_ratio == 1 else [f"B lr ×{self.loraplus_lr_ratio:g}"]
        return " ".join([super()._words(), *said])


@dataclass(frozen=True, kw_only=True)
class Dora(LowRank):
    """DoRA (Liu et al. 2024): LoRA that turns the rows of a weight, and trains their lengths."""

    method: ClassVar[str] = "dora"


@dataclass(frozen=True, kw_only=True)
class MosLora(LowRank):
    """MoSLoRA (Wu et al. 2024): LoRA with a trained square matrix between B and A."""

    method: ClassVar[str] = "moslora"


@dataclass(frozen=True, kw_only=True)
class Hira(Declaration):
    """HiRA (Huang et al. 2025): the weight times a product of two narrow matrices, elementwise."""

    method: ClassVar[str] = "hira"
    targets: tuple[str, ...] = option(Sites(("q", "v")))
    r: int = option(Size(32))
    hira_dropout: float = option(Number(0.0, low=0, below=1))


@dataclass(frozen=True, kw_only=True)
class Loha(Declaration):
    """LoHa (Hyeon-Woo et al. 2022): two products of narrow matrices, multiplied elementwise."""

    method: ClassVar[str] = "loha"
    targets: tuple[str, ...] = option(Sites(("q", "v")))
    r: int = option(Size(8))
    alpha: float = option(Number(None, above=0, null="r"))

    @classmethod
    def completed(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        alpha = options["alpha"]
        return {**options, "alpha": float(options["r"]) if alpha is None else alpha}

    def _words(self) -> str:
        alpha = "" if self.alpha == self.r else f" α{self.alpha:g}"
        return f"{self.method}[{','.join(self.targets)}] r{self.r}{alpha}"


@dataclass(frozen=True, kw_only=True)
class Lokr(Loha):
    """LoKr (Yeh et al. 2024), KronA (Edalati et al. 2022): a Kronecker product of two matrices.

    The larger one is a product of two of rank r where that has fewer elements.
    """

    method: ClassVar[str] = "lokr"


@dataclass(frozen=True, kw_only=True)
class Vera(Declaration):
    """VeRA (Kopiczko et al. 2024): trained factors between two random matrices that all share."""

    method: ClassVar[str] = "vera"
    targets: tuple[str, ...] = option(Sites(("q", "v")))
    r: int = option(Size(256))
    d_initial: float = option(Number(0.1, above=0))


@dataclass(frozen=True, kw_only=True)
class Ia3(Declaration):
    """(IA)³ (Liu et al. 2022): factors of what leaves `targets` or enters `feedforward_modules`."""

    method: ClassVar[str] = "ia3"
    targets: tuple[str, ...] = option(Sites(("k", "v", "down")))
    feedforward_modules: tuple[str, ...] = option(Sites(("down",)))


@dataclass(frozen=True, kw_only=True)
class NormTuning(Declaration):
    """Trains the scales of the norms, and their biases where they have some (Zhao et al. 2023)."""

    method: ClassVar[str] = "norm"


@dataclass(frozen=True, kw_only=True)
class Ssf(Declaration):
    """SSF (Lian et al. 2022): scales and shifts what leaves `targets` and, with `norms`, the norms.

    Shifts stand where the backbone has biases.
    """

    method: ClassVar[str] = "ssf"
    targets: tuple[str, ...] = option(Sites(("q", "k", "v", "o", "up", "gate", "down")))
    norms: bool = option(Flag(True))


@dataclass(frozen=True, kw_only=True)
class FullTuning(Declaration):
    """Trains whole linears, as in tuning of cross-attentions (Gheini et al. 2021)."""

    method: ClassVar[str] = "full"
    targets: tuple[str, ...] = option(Sites(("q", "v")))


@dataclass(frozen=True, kw_only=True)
class SparseTuning(Declaration):
    """Trains some elements of linears, as many as LoRA of rank `r` would have.

    The smallest (PaFi, Liao et al. 2023), the largest, or random ones (SHiRA, Bhardwaj et al.
    2024).
    """

    method: ClassVar[str] = "sparse"
    targets: tuple[str, ...] = option(Sites(("q", "v")))
    r: int = option(Size(8))
    select: str = option(OneOf("smallest", ("smallest", "largest", "random")))


@dataclass(frozen=True, kw_only=True)
class Adapter(Declaration):
    """A bottleneck after a sublayer (Houlsby et al. 2019) or beside it (He et al. 2022)."""

    method: ClassVar[str] = "adapter"
    form: str = option(OneOf("sequential", ("sequential", "parallel")))
    at: str = option(OneOf("ffn", ("attention", "ffn", "both")))
    size: int = option(Size())
    activation: str = option(OneOf("relu", ("relu", "gelu")))
    bias: bool = option(Flag(True))
    scale: float = option(Number(1.0, above=0))

    def _words(self) -> str:
        form = "" if self.form == "sequential" else f"{self.form} "
        usual = self.activation == self.options()["activation"].default
        activation = "" if usual else f" {self.activation}"
        bias = "" if self.bias else " no bias"
        scale = "" if self.scale == 1 else f" ×{self.scale:g}"
        return f"{form}{self.method}/{self.at} {self.size}{activation}{bias}{scale}"


@dataclass(frozen=True, kw_only=True)
class Compacter(Adapter):
    """Compacter (Karimi Mahabadi et al. 2021): an adapter of Kronecker products (PHM).

    `phm_dim` terms make each matrix, whose larger factors have the rank `phm_rank`.
    """

    method: ClassVar[str] = "compacter"
    at: str = option(OneOf("both", ("attention", "ffn", "both")))
    size: int = option(Size(fills=False))
    activation: str = option(OneOf("gelu", ("relu", "gelu")))
    phm_dim: int = option(Whole(4, low=1))
    phm_rank: int = option(Whole(1, low=1))

    def _words(self) -> str:
        return f"{super()._words()} n{self.phm_dim} rank {self.phm_rank}"


@dataclass(frozen=True, kw_only=True)
class AdaMix(Adapter):
    """AdaMix (Wang et al. 2022): adapters of `n_experts`, drawn in training, averaged after it."""

    method: ClassVar[str] = "adamix"
    n_experts: int = option(Whole(4, low=2))

    def _words(self) -> str:
        return f"{super()._words()} of {self.n_experts}"


@dataclass(frozen=True, kw_only=True)
class Prefix(Declaration):
    """Trained keys and values before those of the text (Li and Liang 2021).

    `prefix_projection` makes them by a network, `encoder_hidden_size` or a hidden state wide, of
    which exports keep what it makes.
    """

    method: ClassVar[str] = "prefix"
    length: int = option(Size())
    prefix_projection: bool = option(Flag(False, later=True))
    encoder_hidden_size: int | None = option(Whole(None, low=1, null="the width", later=True))

    def _words(self) -> str:
        size = "" if self.encoder_hidden_size is None else f" of width {self.encoder_hidden_size}"
        network = " through a network" if self.prefix_projection else ""
        return f"prefix {self.length}{network}{size}"


@dataclass(frozen=True, kw_only=True)
class BitFit(Declaration):
    """Trains the biases that the backbone has, or those of `targets` (Ben Zaken et al. 2022)."""

    method: ClassVar[str] = "bitfit"
    targets: tuple[str, ...] | None = option(
        Sites(None, null="all, those of the norms, too", later=True)
    )


@dataclass(frozen=True, kw_only=True)
class Peft(Declaration):
    """Any type of HF peft that sits at linears, with its own options (Mangrulkar et al. 2022).

    `peft_type` is HF peft's name of it, such as `miss`, `oft`, `fourierft` or `randlora`. In
    Python its own options stand in `own`.
    """

    method: ClassVar[str] = "peft"
    takes_more: ClassVar[bool] = True
    peft_type: str = option(Name())
    targets: tuple[str, ...] = option(Sites(("q", "v")))
    own: Any = ()

    def to_dict(self) -> dict[str, Any]:
        document = super().to_dict()
        own = dict(document.pop("own"))
        return {**document, **own}

    def _words(self) -> str:
        own = "".join(f" {name}={value}" for name, value in self.own)
        return f"peft {self.peft_type}[{','.join(self.targets)}]{own}"


DECLARATIONS: Mapping[str, type[Declaration]] = {
    kind.method: kind
    for kind in (
        *(AdaMix, Adapter, BitFit, Compacter, Dora, FullTuning, Hira, Ia3, Loha, Lokr, Lora),
        *(MosLora, NormTuning, Peft, Prefix, SparseTuning, Ssf, Vera),
    )
}


def size_option(method: str) -> str | None:
    """The option that says how big a placement of a method is; None where there is none."""
    return DECLARATIONS[method].size_option() if method in DECLARATIONS else None


def size_of(placement: Placement) -> float:
    """The size of a placement, 1 where its method has none."""
    size = size_option(placement.method)
    return 1.0 if size is None else float(placement[size])
