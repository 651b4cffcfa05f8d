"""Writes a chosen trial for the tools that will use it."""

from autopeft.exporter.card import CardFacts
from autopeft.exporter.exporter import Exporter, Obstacle, Trained
from autopeft.exporter.native import load
from autopeft.exporter.registry import EXPORTERS
from autopeft.exporter.writer import export

__all__ = ["EXPORTERS", "CardFacts", "Exporter", "Obstacle", "Trained", "export", "load"]
