"""Output on terminals that cannot write every character."""

from __future__ import annotations

import codecs
import io
import sys

_PLAIN = {"↑": "^", "↓": "v", "·": "|", "–": "-", "±": "+-", "×": "x", "α": "alpha ", "…": "..."}


def write_anything() -> None:
    """Lets both output streams write what their encoding lacks in ASCII, or as a question mark."""
    codecs.register_error("autopeft.plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="autopeft.plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    missing = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, "?") for character in missing), error.end
