"""Writes a chosen trial for the tools that will use it."""

from autopeft.export.card import CardFacts
from autopeft.export.exporter import Exporter, Obstacle, Trained
from autopeft.export.native import load
from autopeft.export.registry import EXPORTERS
from autopeft.export.writer import export

__all__ = ["EXPORTERS", "CardFacts", "Exporter", "Obstacle", "Trained", "export", "load"]
