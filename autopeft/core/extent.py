"""What a study keeps of how much data it is trained on."""

from __future__ import annotations

from collections.abc import Mapping

EXTENT = "extent"
"""Attribute of the record that says how many examples there are, and what is cut of them."""


def cut_told(extent: Mapping[str, int]) -> str:
    """The share of the examples of a split and of their tokens that is too long, in words."""
    examples, tokens = extent.get("cut_examples", 0), extent.get("cut_tokens", 0)
    if not examples:
        return ""
    share = f"{examples} of {extent['examples']} examples ({examples / extent['examples']:.0%})"
    return f"{share} are too long and lose {tokens / extent['tokens']:.1%} of all tokens"
