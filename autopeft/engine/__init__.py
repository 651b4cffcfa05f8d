"""Runs the trials of a study: in this process or on a Ray cluster."""
