"""A configuration as one line for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

from autopeft.core.config import PeftConfig, Placement, thaw


def summary(config: PeftConfig) -> str:
    """Such as `lora[q,v] r8 @0-2 · adapter/ffn 32 @3-5 · bitfit @5`; `head only` for no placement.

    Layers are indices from 0. Options of no consequence for the size are named where they differ
    from the default.
    """
    parts = [f"{_what(p)} @{spans(p.layers)}" for p in config.placements]
    return " · ".join(parts) or "head only"


def spans(layers: Iterable[int]) -> str:
    """Ascending indices with runs joined: `0-2,5`."""
    runs = []
    for _, run in groupby(enumerate(layers), key=lambda pair: pair[1] - pair[0]):
        indices = [index for _, index in run]
        runs.append(str(indices[0]) if len(indices) == 1 else f"{indices[0]}-{indices[-1]}")
    return ",".join(runs)


def _what(placement: Placement) -> str:
    return _WORDS.get(placement.method, _plain)(placement)


def _lora(placement: Placement) -> str:
    options = thaw(placement.options)
    text = f"lora[{','.join(options['targets'])}] r{options['r']}"
    alpha = options.get("lora_alpha")
    if alpha is not None and alpha != 2 * options["r"]:
        text += f" α{alpha:g}"
    return text + (f" drop {options['lora_dropout']:g}" if options.get("lora_dropout") else "")


def _adapter(placement: Placement) -> str:
    options = thaw(placement.options)
    form = "" if options.get("form") == "sequential" else f"{options['form']} "
    text = f"{form}adapter/{options['at']} {options['size']}"
    text += f" {options['activation']}" if options.get("activation", "relu") != "relu" else ""
    text += "" if options.get("bias", True) else " no bias"
    return text + (f" ×{options['scale']:g}" if options.get("scale", 1.0) != 1.0 else "")


def _prefix(placement: Placement) -> str:
    return f"prefix {placement['length']}"


def _plain(placement: Placement) -> str:
    options = (f"{key}={_text(value)}" for key, value in placement.options)
    return " ".join((placement.method, *options))


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


_WORDS: dict[str, Callable[[Placement], str]] = {
    "lora": _lora,
    "adapter": _adapter,
    "prefix": _prefix,
}
