"""The command line: reads files, calls the rooms below, prints."""

from autopeft.cli.main import main

__all__ = ["main"]
