"""Commands through the real entry point, and one tiny study that is run once."""

import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from autopeft.cli import main
from tests import tiny

ENTRY = [sys.executable, "-c", "from autopeft.cli import main; main()"]


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


@pytest.fixture
def autopeft(monkeypatch):
    """Runs a command in this process."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["autopeft", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "80")
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main()
        return Said(ended.value.code or 0, out.getvalue(), err.getvalue())

    return call


@dataclass(frozen=True)
class Ran:
    path: Path
    result: dict
    err: str


@pytest.fixture(scope="session")
def ran(tmp_path_factory):
    """A tiny study that a process of its own has run to the end with `--json`."""
    path = tiny.write_study(tmp_path_factory.mktemp("tiny"))
    done = subprocess.run(
        [*ENTRY, "run", str(path), "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return Ran(path, json.loads(done.stdout), done.stderr)
