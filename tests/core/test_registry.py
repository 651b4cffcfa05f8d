"""What installed packages add to registries, and what of it is broken."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from autopeft.core.errors import StudyError
from autopeft.core.registry import Registry

ROOT = Path(__file__).parents[2]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with entry points of one group."""
    folder = tmp_path / "broken-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(
        "[autopeft.methods]\nnowhere = no_such_module:X\nnumber = math:pi\nlora = math:pi\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_own_names_stay_and_what_cannot_be_loaded_says_why(package):
    registry = Registry({"lora": 1.0}, "autopeft.methods", lambda entry: entry == 1.0)
    assert [*registry] == ["lora", "nowhere", "number"]
    assert (registry["lora"], len(registry)) == (1.0, 3)
    with pytest.raises(StudyError, match="nowhere: no_such_module:X cannot be loaded: ModuleNot"):
        registry["nowhere"]
    with pytest.raises(StudyError, match=r"number: math:pi is none of the autopeft\.methods"):
        registry["number"]
    with pytest.raises(KeyError):
        registry["another"]


ENTRY = "from autopeft.cli import main; main()"


@pytest.mark.parametrize("code", [ENTRY, "import autopeft.api.run, autopeft.method.registry"])
def test_a_broken_package_stops_nothing_else(package, code):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(package), str(ROOT)])}
    words = [sys.executable, "-c", code, "list", "methods"]
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("cannot be loaded" in done.stdout) == (code == ENTRY)
