"""Writes a chosen trial for the tools that will use it."""
