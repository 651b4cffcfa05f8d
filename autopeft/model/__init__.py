"""Backbones: found, loaded, shared, quantized, or without weights."""
