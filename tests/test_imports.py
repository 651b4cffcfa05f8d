"""The import contracts hold, and notice a violation."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINT = [
    sys.executable,
    "-c",
    "from importlinter.cli import lint_imports_command as lint; lint()",
    "--no-cache",
]


def lint(folder):
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(LINT, cwd=folder, env=environment, capture_output=True, text=True)


def copy(folder):
    shutil.copytree(ROOT / "autopeft", folder / "autopeft")
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


PLANTED = [
    ("core.errors", "autopeft.space.layers"),
    ("space.layers", "autopeft.objective.pareto"),
    ("report.front", "autopeft.exporter.card"),
    ("method.lora", "autopeft.search.gain"),
    ("search.gain", "autopeft.method.lora"),
    ("memory.flops", "autopeft.study.trial"),
    ("task.task", "ray"),
]


def test_contracts_hold(tmp_path):
    result = lint(copy(tmp_path))
    assert result.returncode == 0, result.stdout


def test_every_planted_violation_is_found(tmp_path):
    package = copy(tmp_path) / "autopeft"
    for importer, imported in PLANTED:
        path = package / f"{importer.replace('.', '/')}.py"
        path.write_text(f"{path.read_text()}\nimport {imported}\n")
    layers = package / "space" / "layers.py"
    layers.write_text(f"{layers.read_text()}\n\ndef late():\n    import autopeft.space.space\n")
    (package / "attic").mkdir()
    (package / "attic" / "__init__.py").touch()
    result = lint(package.parent)
    assert result.returncode == 1
    assert "Contracts: 0 kept" in result.stdout
    assert "- autopeft.attic" in result.stdout
    assert "No cycles are allowed in autopeft.space." in result.stdout
    for importer, imported in PLANTED:
        assert f"autopeft.{importer} -> {imported} " in result.stdout


def test_public_names_exist():
    import autopeft

    assert all(getattr(autopeft, name) is not None for name in autopeft.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lorra'"):
        _ = autopeft.lorra
