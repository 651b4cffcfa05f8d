"""Settings of the whole suite."""

from __future__ import annotations

import gc

import pytest

SHARED = ("trainer", "still", "ran", "outcome", "first", "elsewhere", "postgres", "cluster")
"""Fixtures that take seconds: the tests of one of them run in one process."""

ALIKE = ("onnx", "block_does")
"""Parts of the names of tests that share what takes seconds to import or to run."""


def pytest_configure(config: pytest.Config) -> None:
    """What fixtures import takes seconds, too, and the process that deals out tests needs none."""
    if config.getoption("dist") == "no":
        config.pluginmanager.import_plugin("tests.fixtures")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for name in SHARED:
            if name in item.fixturenames:
                item.add_marker(pytest.mark.xdist_group(name))
                break
        else:
            for name in (name for name in ALIKE if name in item.nodeid):
                item.add_marker(pytest.mark.xdist_group(name))


def pytest_collection_finish() -> None:
    """Nothing that was imported is garbage."""
    gc.freeze()
    gc.set_threshold(700, 10, 10)
