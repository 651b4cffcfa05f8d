"""What papers call PEFT methods, and how it is said here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Published:
    """A method of a paper.

    Attributes:
        name: as the paper has it.
        paper: authors and year.
        place: the placement that it is; none where it is `space` or is not there.
        space: of the catalog.
        remark: how what stands here is not that of the paper, or why nothing does.
    """

    name: str
    paper: str
    place: Mapping[str, Any] | None = None
    space: str = ""
    remark: str = ""

    @property
    def said(self) -> str:
        """How it is said here."""
        if self.place is not None:
            own = ", ".join(f"{key}: {_yaml(value)}" for key, value in self.place.items())
            return f"{{{own}}}"
        return f"the space {self.space}" if self.space else "not there"


def _yaml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(value)}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _lora(**options: Any) -> Mapping[str, Any]:
    return {"method": "lora", **options}


def _adapter(**options: Any) -> Mapping[str, Any]:
    return {"method": "adapter", "size": 48, **options}


def _prompt(**options: Any) -> Mapping[str, Any]:
    return {"method": "prompt", "length": 20, **options}


def _prefix(**options: Any) -> Mapping[str, Any]:
    return {"method": "prefix", "length": 20, **options}


_CROSS = {"method": "full", "targets": ["cross.q", "cross.k", "cross.v", "cross.o"]}

_CHILD = {"method": "sparse", "select": "fisher", "targets": ["q", "k", "v", "o", "up", "down"]}
_TRAINS_FIRST = "trains all weights for a while to choose some"

PUBLISHED: tuple[Published, ...] = (
    Published("LoRA-FA", "Zhang et al. 2023", _lora(freeze_a=True)),
    Published("rsLoRA", "Kalajdzievski 2023", _lora(use_rslora=True)),
    Published("LoRA+", "Hayou et al. 2024", _lora(loraplus_lr_ratio=16)),
    Published("PiSSA", "Meng et al. 2024", _lora(init_lora_weights="pissa")),
    Published("DyLoRA", "Valipour et al. 2023", _lora(use_dylora=True)),
    Published("QLoRA", "Dettmers et al. 2023", space="qlora"),
    Published(
        "LoftQ",
        "Li et al. 2024",
        _lora(init_lora_weights="loftq"),
        remark="one step of its algorithm; the backbone is quantized as it is",
    ),
    Published("EVA", "Paischer et al. 2024", _lora(init_lora_weights="eva")),
    Published("AdaLoRA", "Zhang et al. 2023"),
    Published("SoRA", "Ding et al. 2023"),
    Published("KronA", "Edalati et al. 2022", {"method": "lokr"}),
    Published("Houlsby adapter", "Houlsby et al. 2019", _adapter(at="both")),
    Published(
        "Pfeiffer adapter",
        "Pfeiffer et al. 2021",
        _adapter(at="ffn"),
        remark="in the form of He et al. 2022: it reads what leaves the network, in AdapterHub's "
        "library the norm of that and the residual",
    ),
    Published(
        "Scaled parallel adapter", "He et al. 2022", _adapter(form="parallel", at="ffn", scale=4.0)
    ),
    Published(
        "PHM adapter",
        "Karimi Mahabadi et al. 2021",
        {"method": "compacter", "size": 48, "phm_dim": 4, "phm_rank": 12},
    ),
    Published(
        "Tiny-attention adapter",
        "Zhao et al. 2022",
        {"method": "tiny-attention", "head_dim": 1, "num_heads": 1},
    ),
    Published(
        "SparseAdapter", "He et al. 2022", {"method": "sparse-adapter", "size": 64, "at": "both"}
    ),
    Published("ProPETL", "Zeng et al. 2023", {"method": "propetl", "size": 48, "at": "both"}),
    Published("LN-tuning", "Qi et al. 2022", {"method": "norm"}),
    Published("Hadamard adapter", "Chen et al. 2023", space="hadamard"),
    Published("Prefix-tuning", "Li and Liang 2021", _prefix(prefix_projection=True)),
    Published("P-tuning v2", "Liu et al. 2022", _prefix()),
    Published("APT", "Zhang et al. 2023", _prefix(adaptive=True)),
    Published("Prompt tuning", "Lester et al. 2021", _prompt()),
    Published("P-tuning", "Liu et al. 2021", _prompt(encoder_reparameterization_type="mlp")),
    Published("VPT-shallow", "Jia et al. 2022", _prompt()),
    Published("VPT-deep", "Jia et al. 2022", _prompt(deep=True)),
    Published("LPT", "Liu et al. 2022", space="lpt"),
    Published("U-BitFit, S-BitFit, U-MAM, S-MAM", "Lawton et al. 2023"),
    Published("PaFi", "Liao et al. 2023", {"method": "sparse", "select": "smallest"}),
    Published("SHiRA", "Bhardwaj et al. 2024", {"method": "sparse", "select": "random"}),
    Published("FishMask", "Sung et al. 2021", {"method": "sparse", "select": "fisher"}),
    Published("LT-SFT", "Ansell et al. 2022", remark=_TRAINS_FIRST),
    Published("FAR", "Vucetic et al. 2022", remark=_TRAINS_FIRST),
    Published("Child-Tuning-D", "Xu et al. 2021", _CHILD),
    Published("Child-Tuning-F", "Xu et al. 2021", remark="trains all weights, some in each step"),
    Published("Cross-attention tuning", "Gheini et al. 2021", _CROSS),
    Published("LST", "Sung et al. 2022", {"method": "ladder", "size": 48}),
    Published("MAM adapter", "He et al. 2022", space="mam"),
    Published("UniPELT", "Mao et al. 2022", space="unipelt"),
    Published("S4", "Chen et al. 2023", space="s4"),
    Published("NOAH", "Zhang et al. 2024", space="noah"),
    Published("S3Delta", "Hu et al. 2022", space="s3delta"),
    Published("AutoPEFT", "Zhou et al. 2024", space="autopeft"),
)
"""The rows of the surveys that have another name here, or are not there."""
