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


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(ROOT / "autopeft", tmp_path / "autopeft")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_contracts_hold(copy):
    result = lint(copy)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("core/errors.py", "import autopeft.space.layers"),
        ("space/layers.py", "import autopeft.objective.pareto"),
        ("report/front.py", "import autopeft.exporter.card"),
        ("task/task.py", "import ray"),
    ],
)
def test_a_planted_violation_is_found(copy, file, line):
    path = copy / "autopeft" / file
    path.write_text(f"{path.read_text()}\n{line}\n")
    result = lint(copy)
    assert result.returncode == 1, result.stdout
    assert "BROKEN" in result.stdout


def test_a_room_without_a_floor_is_found(copy):
    (copy / "autopeft" / "attic").mkdir()
    (copy / "autopeft" / "attic" / "__init__.py").write_text("")
    assert lint(copy).returncode == 1


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, autopeft; print(sorted({'torch', 'ray', 'optuna'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]"


def test_public_names_exist():
    import autopeft

    assert all(getattr(autopeft, name) is not None for name in autopeft.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lorra'"):
        _ = autopeft.lorra
