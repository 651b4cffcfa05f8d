"""The vocabulary of PEFT methods: what may be said of each, declared once, without mathematics.

The DSL, Python, the search, reports and exporters read these declarations. A new method is a class
here and in `DECLARATIONS`, and a file of mathematics in `method/`, named in its registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from autopeft.core.declaration import Declaration
from autopeft.core.options import Flag, Name, Number, OneOf, Sites, Size, Whole, option
from autopeft.core.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Gateable(Declaration):
    """A placement whose effect `use_gating` multiplies by a gate (UniPELT, Mao et al. 2022)."""

    use_gating: bool = option(Flag(False, later=True))

    def words(self) -> str:
        return f"gated {super().words()}" if self.use_gating else super().words()


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
class Lora(Gateable, LowRank):
    """LoRA (Hu et al. 2021): `h + lora_alpha / r · B A x` beside the linears at `targets`.

    Without `lora_alpha` the factor is 2, whatever the rank. `lora_dropout` acts on x. `use_rslora`
    divides by the root of r (Kalajdzievski 2023), `freeze_a` trains B alone (LoRA-FA, Zhang et al.
    2023), `use_dylora` trains the first of its ranks, as many as are drawn in every step (DyLoRA,
    Valipour et al. 2023), `loraplus_lr_ratio` is how many times the rate of A that of B is (LoRA+,
    Hayou et al. 2024), `init_lora_weights: pissa` starts from the largest singular vectors of the
    weight (PiSSA, Meng et al. 2024), `loftq` from those of what the quantization of the backbone
    takes of it (LoftQ, Li et al. 2024), and `eva` from the directions in which what enters the
    linear varies most in training examples (EVA, Paischer et al. 2024).
    """

    method: ClassVar[str] = "lora"
    init_lora_weights: str = option(
        OneOf("default", ("default", "gaussian", "pissa", "loftq", "eva"), later=True)
    )
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

    The smallest (PaFi, Liao et al. 2023), the largest, random ones (SHiRA, Bhardwaj et al. 2024),
    or with `fisher` those with most Fisher information in `num_samples` training examples
    (FishMask, Sung et al. 2021).
    """

    method: ClassVar[str] = "sparse"
    targets: tuple[str, ...] = option(Sites(("q", "v")))
    r: int = option(Size(8))
    select: str = option(OneOf("smallest", ("smallest", "largest", "random", "fisher")))
    num_samples: int = option(Whole(128, low=1, later=True))


@dataclass(frozen=True, kw_only=True)
class Sublayer(Declaration):
    """What stands after the sublayers `at` a place of each layer (`sequential`), or beside them."""

    form: str = option(OneOf("sequential", ("sequential", "parallel")))
    at: str = option(OneOf("ffn", ("attention", "ffn", "both")))

    def _words(self) -> str:
        form = "" if self.form == "sequential" else f"{self.form} "
        return f"{form}{self.method}/{self.at}"


@dataclass(frozen=True, kw_only=True)
class Adapter(Gateable, Sublayer):
    """A bottleneck after a sublayer (Houlsby et al. 2019) or beside it (He et al. 2022)."""

    method: ClassVar[str] = "adapter"
    size: int = option(Size())
    activation: str = option(OneOf("relu", ("relu", "gelu")))
    bias: bool = option(Flag(True))
    scale: float = option(Number(1.0, above=0))

    def _words(self) -> str:
        usual = self.activation == self.options()["activation"].default
        activation = "" if usual else f" {self.activation}"
        bias = "" if self.bias else " no bias"
        scale = "" if self.scale == 1 else f" ×{self.scale:g}"
        return f"{super()._words()} {self.size}{activation}{bias}{scale}"


@dataclass(frozen=True, kw_only=True)
class TinyAttention(Sublayer):
    """Attention of tiny heads after a sublayer, or beside it (Zhao, Tan and Mei 2022)."""

    method: ClassVar[str] = "tiny-attention"
    at: str = option(OneOf("attention", ("attention", "ffn", "both")))
    head_dim: int = option(Size(1))
    num_heads: int = option(Whole(1, low=1))

    def _words(self) -> str:
        return f"{super()._words()} {self.num_heads}×{self.head_dim}"


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
class Prefix(Gateable):
    """Trained keys and values before those of the text (Li and Liang 2021).

    `prefix_projection` makes them by a network, `encoder_hidden_size` or a hidden state wide, of
    which exports keep what it makes. With `adaptive` the text says how much each of them counts
    (APT, Zhang et al. 2023).
    """

    method: ClassVar[str] = "prefix"
    length: int = option(Size())
    prefix_projection: bool = option(Flag(False, later=True))
    encoder_hidden_size: int | None = option(Whole(None, low=1, null="the width", later=True))
    adaptive: bool = option(Flag(False, later=True))

    def _words(self) -> str:
        adaptive = "adaptive " if self.adaptive else ""
        size = "" if self.encoder_hidden_size is None else f" of width {self.encoder_hidden_size}"
        network = " through a network" if self.prefix_projection else ""
        return f"{adaptive}prefix {self.length}{network}{size}"


@dataclass(frozen=True, kw_only=True)
class Prompt(Declaration):
    """Trained hidden states before those of the text, on consecutive layers (Lester et al. 2021).

    They enter below the lowest of them, which may be a middle one (Liu et al. 2022); with `deep`
    each layer has its own (VPT, Jia et al. 2022). `encoder_reparameterization_type: mlp` makes
    them by a network, `encoder_hidden_size` or a hidden state wide, of which exports keep what it
    makes (P-tuning, Liu et al. 2021).
    """

    method: ClassVar[str] = "prompt"
    length: int = option(Size())
    deep: bool = option(Flag(False))
    encoder_reparameterization_type: str = option(OneOf("none", ("none", "mlp")))
    encoder_hidden_size: int | None = option(Whole(None, low=1, null="the width"))

    def _words(self) -> str:
        deep = " in every layer" if self.deep else ""
        network = " through a network" if self.encoder_reparameterization_type == "mlp" else ""
        size = "" if self.encoder_hidden_size is None else f" of width {self.encoder_hidden_size}"
        return f"prompt {self.length}{deep}{network}{size}"


@dataclass(frozen=True, kw_only=True)
class Ladder(Declaration):
    """A network of width `size` beside consecutive layers, fed by them (LST, Sung et al. 2022).

    Nothing is propagated back through the backbone below.
    """

    method: ClassVar[str] = "ladder"
    size: int = option(Size())


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


@dataclass(frozen=True, kw_only=True)
class ProPetl(Adapter):
    """ProPETL (Zeng et al. 2023): one adapter for all sublayers, of which each has a part.

    The part is the `density` of each matrix with the largest scores, which are trained.
    """

    method: ClassVar[str] = "propetl"
    density: float = option(Number(0.5, above=0, below=1))

    def _words(self) -> str:
        return f"{super()._words()} {self.density:.0%}"


@dataclass(frozen=True, kw_only=True)
class SparseAdapter(Adapter):
    """SparseAdapter (He et al. 2022): an adapter of which the `density` of each matrix is trained.

    With `snip` those to which the loss of `num_samples` training examples is most sensitive.
    """

    method: ClassVar[str] = "sparse-adapter"
    density: float = option(Number(0.5, above=0, below=1))
    select: str = option(OneOf("snip", ("snip", "random")))
    num_samples: int = option(Whole(128, low=1, later=True))

    def _words(self) -> str:
        return f"{super()._words()} {self.density:.0%} {self.select} {self.num_samples}"


DECLARATIONS: Registry[type[Declaration]] = Registry(
    {
        kind.method: kind
        for kind in (
            *(AdaMix, Adapter, BitFit, Compacter, Dora, FullTuning, Hira, Ia3, Ladder, Loha, Lokr),
            *(Lora, MosLora, NormTuning, Peft, Prefix, Prompt, ProPetl, SparseAdapter),
            *(SparseTuning, Ssf, TinyAttention, Vera),
        )
    },
    "autopeft.methods",
    lambda kind: isinstance(kind, type) and issubclass(kind, Declaration) and kind.mathematics,
)
