"""Terminals that are not UTF-8."""

from __future__ import annotations

import io

import pytest

from autopeft.api.outcome import open_study
from autopeft.cli.encoding import write_anything
from autopeft.cli.progress import Progress
from autopeft.cli.show import show_front, show_status


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437"])
def test_no_character_stops_a_command(ran, monkeypatch, encoding):
    outcome = open_study(str(ran.path))
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr("sys.stdout", streams[0])
    monkeypatch.setattr("sys.stderr", streams[1])
    write_anything()
    show_status(outcome)
    show_front(outcome)
    print("文 ↑ ↓ ± α × · – …")
    progress = Progress(None)
    progress.console.print("accuracy ↑ · lora α8")
    out, err = (stream.buffer.getvalue() if not stream.flush() else b"" for stream in streams)
    assert b"best accuracy ^" in out
    assert b"best trainable params v" in out
    assert b"? ^ v " in out
    assert err.startswith(b"accuracy ^")
