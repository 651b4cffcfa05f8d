"""Samplers and early stopping; a decision is a pure function of the history."""
