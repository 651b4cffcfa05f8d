"""The display on a terminal."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

from tests.cli.conftest import ENTRY


def on_a_terminal(words):
    """Exit code and all that a command writes to a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 80, 0, 0))
    env = {**os.environ, "TERM": "xterm-256color"}
    env.pop("COLUMNS", None)
    process = subprocess.Popen(
        [*ENTRY, *map(str, words)], stdin=theirs, stdout=theirs, stderr=theirs, env=env
    )
    os.close(theirs)
    written = b""
    try:
        while part := os.read(ours, 65536):
            written += part
    except OSError:  # the terminal is closed
        pass
    os.close(ours)
    return process.wait(), written.decode()


def test_a_terminal_shows_what_goes_on_and_then_the_front(ran):
    changes = ("name=shown", "search.n_trials=3", "fidelity.epochs=[2, 9]")
    code, written = on_a_terminal(
        ["run", ran.path, *(part for change in changes for part in ("--set", change))]
    )
    assert code == 0, written
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    lines = plain.replace("\r", "\n").split("\n")
    shown = [line for line in lines if line.startswith(("shown ", "best ", "machine ", "time "))]
    assert max(map(len, shown)) <= 80
    assert re.search(r"shown +[0-3]/3 .*running", plain)
    assert re.search(r"trial \d +(begins|epoch \d+) +\S+", plain)
    assert re.search(r"best accuracy ↑ +[01]\.\d{4} +\S+", plain)
    assert re.search(r"machine +cores \d+%, memory \d+ of \d+ GB", plain)
    assert re.search(r"time +\d+ s", plain)
    assert "Pareto front of shown" in plain.rpartition("machine")[2]
