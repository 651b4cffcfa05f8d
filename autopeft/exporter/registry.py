"""The formats by name."""

from __future__ import annotations

from collections.abc import Mapping

from autopeft.exporter.adapterhub import AdapterHub
from autopeft.exporter.exporter import Exporter
from autopeft.exporter.hf_peft import HFPeft
from autopeft.exporter.merged import Merged
from autopeft.exporter.native import Native
from autopeft.exporter.onnx import Onnx

EXPORTERS: Mapping[str, Exporter] = {
    "native": Native(),
    "peft": HFPeft(),
    "merged": Merged(),
    "onnx": Onnx(),
    "adapters": AdapterHub(),
}
