"""What all tests share."""

from __future__ import annotations

import os
import signal
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import trax
from tests.crashing import MEMORY, make_small

# Children run in other directories; a relative PYTHONPATH must still mean this one there.
if paths := os.environ.get("PYTHONPATH"):
    os.environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, paths.split(os.pathsep)))

# A shell that runs this in the background ignores SIGINT, and children inherit that: here Ctrl-C must mean something.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The time of one example says nothing here: an fsync may take a hundred times longer than its neighbour.
settings.register_profile("trax", deadline=None, print_blob=True)
settings.load_profile("trax")


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory in memory, for searches whose crashes are modelled; small jobs do what only large ones would."""
    make_small(monkeypatch)
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory, warnings.catch_warnings():
        warnings.simplefilter("ignore", trax.TraxWarning)
        yield Path(directory)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    for item in items:
        if "root" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs the superuser's rights"))
