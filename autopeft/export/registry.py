"""The formats by name."""

from __future__ import annotations

from collections.abc import Mapping

from autopeft.export.exporter import Exporter
from autopeft.export.hf_peft import HFPeft
from autopeft.export.merged import Merged
from autopeft.export.native import Native

EXPORTERS: Mapping[str, Exporter] = {"native": Native(), "peft": HFPeft(), "merged": Merged()}
