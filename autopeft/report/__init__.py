"""Looks at a study: tables, plots and a page."""
