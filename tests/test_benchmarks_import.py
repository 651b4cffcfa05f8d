"""Benchmarks can be started; what they measure is tested under the marker `benchmark`."""

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = [path.relative_to(ROOT).with_suffix("") for path in ROOT.glob("benchmarks/**/*.py")]
NEEDS = {"ax_sampler": "ax", "adapterhub": "adapters"}
"""What is not always installed."""


@pytest.mark.parametrize("name", sorted(".".join(path.parts) for path in FILES))
def test_a_benchmark_imports_and_says_what_it_takes(name, monkeypatch, capsys):
    pytest.importorskip(NEEDS.get(name.rpartition(".")[2], "pytest"))
    module = importlib.import_module(name)
    if "argparse" in vars(module):
        monkeypatch.setattr(sys, "argv", [name, "--help"])
        with pytest.raises(SystemExit, match="0"):
            module.main()
        assert capsys.readouterr().out.startswith("usage: ")
