"""How busy the machine is."""

import re

import pytest

from autopeft.core import host


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("0, 97, 4000, 16000", ["GPU 0 97%, 4 of 17 GB"]),
        ("0, 3, [N/A], [N/A]", []),
        ("0, 1, 10, 2000\n1, 2, 20, 4000", ["GPU 0 1%, 0 of 2 GB", "GPU 1 2%, 0 of 4 GB"]),
    ],
)
def test_gpus_are_told_as_their_tool_tells_them(says, told, tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '{says}\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    machine, *gpus = host.use().split("; ")
    assert re.fullmatch(r"cores \d+%, memory \d+ of \d+ GB", machine)
    assert gpus == told
