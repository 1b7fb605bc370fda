"""Each fsync is needed: without it, some power loss leaves what must not be.

The small jobs are recorded with the place in the code of every fsync. Then all fsyncs of one place are struck out of
the recordings, as if that line were gone, and the search must find a state of the disk that breaks a promise.
"""

from __future__ import annotations

import linecache
import os
import random
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import trax
from tests.counting import count
from tests.crashing import MEMORY, Model, Search, make_small
from tests.workloads import WORKLOADS, Workload, create_value, record
from trax.testing.recording import RecordingFileSystem

Make = Callable[[Path], "PlacedFileSystem"]

PACKAGE = str(Path(trax.__file__).parent)
SEED = os.environ.get("TRAX_SEED", "20261121")

THROUGH = ("sync", "fsync_directory", "write_file", "make_directory")
"""Of a segment and of a file system: it is their callers that know what is made durable."""

FOR_SPEED_OR_PROOF = {
    "creation.first_snapshot: writer.sync()": "a crash in the creation is not reported as a torn tail",
    "directory._let_go: writer.sync()": "the next opening need not write the end of the log again",
    "directory.mark: self._writer.sync()": "damage of the last synced record can be told from a tear",
}
"""Fsyncs without which a power loss takes nothing, and what they are good for."""


class PlacedFileSystem(RecordingFileSystem):
    """Writes down too where in the code each fsync was asked for."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        super().__init__(root)
        self.places: dict[int, str] = {}

    def fsync(self, fd: int) -> None:
        super().fsync(fd)
        self._place("fsync")

    def fdatasync(self, fd: int) -> None:
        super().fdatasync(fd)
        self._place("fsync")

    def fsync_directory(self, path: str) -> None:
        super().fsync_directory(path)
        self._place("fsync_directory")

    def _place(self, kind: str) -> None:
        if self.operations and self.operations[-1].kind == kind:
            self.places.setdefault(len(self.operations) - 1, place_of_the_call())


def place_of_the_call() -> str:
    """The line of the storage that asked for it; of a segment's ``sync``, the line that called that."""
    frame = sys._getframe(1)
    while True:
        file, function = frame.f_code.co_filename, frame.f_code.co_name
        inside = file.startswith(PACKAGE) and not file.startswith(str(Path(PACKAGE, "testing")))
        if inside and not (file.endswith(("segment.py", "fs.py")) and function in THROUGH):
            code = linecache.getline(file, frame.f_lineno).partition("#")[0].strip()
            return f"{Path(file).stem}.{function}: {code}"
        assert frame.f_back is not None
        frame = frame.f_back


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    make_small(monkeypatch)
    print(f"TRAX_SEED={SEED}")
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        yield Path(directory)


def recordings(memory: Path) -> Iterator[tuple[str, PlacedFileSystem]]:
    """The name of the store in each, and the recording; the small ones first."""
    for store, make in STORES.items():
        yield store, make(memory / make.__name__)
    for sync in ("always", "os"):
        for calls in WORKLOADS:
            _, fs = record(calls, memory / f"{calls.__name__}-{sync}", sync, make_fs=PlacedFileSystem)
            assert isinstance(fs, PlacedFileSystem)
            yield "store", fs


def below_new_directories(root: Path) -> PlacedFileSystem:
    root.mkdir()
    fs = PlacedFileSystem(root)
    Workload(root / "a" / "b" / "store", random.Random(0), "always", 1).play(create_value, fs)
    return fs


def after_a_creation_that_was_killed(root: Path) -> PlacedFileSystem:
    """Another process has made the directory, and was killed before it could sync its name."""
    root.mkdir()
    fs = PlacedFileSystem(root)
    fs.mkdir(str(root / "store"))
    Workload(root / "store", random.Random(0), "always", 1).play(create_value, fs)
    return fs


def below_what_was_made_before_a_kill(root: Path) -> PlacedFileSystem:
    """The same of the directory above it."""
    root.mkdir()
    fs = PlacedFileSystem(root)
    fs.mkdir(str(root / "a"))
    Workload(root / "a" / "store", random.Random(0), "always", 1).play(create_value, fs)
    return fs


STORES: dict[str, Make] = {
    "a/b/store": below_new_directories,
    "a/store": below_what_was_made_before_a_kill,
    "store": after_a_creation_that_was_killed,
}


def without(fs: PlacedFileSystem, place: str) -> PlacedFileSystem:
    """The recording as it would be without the fsyncs of that place."""
    changed = object.__new__(PlacedFileSystem)
    changed.start = fs.start
    changed.operations = [one for number, one in enumerate(fs.operations) if fs.places.get(number) != place]
    return changed


def is_missed(store: str, fs: PlacedFileSystem, place: str, scratch: Path, limit: int) -> bool:
    search = Search(scratch, random.Random(SEED), limit=limit, samples=limit // 10, settled=(f"{store}/lock",))
    try:
        search.everywhere(without(fs, place), store, Model().demand)
    except (AssertionError, trax.TraxError):
        return True
    finally:
        count("power loss without an fsync", search.tried + 1)
    return False


@pytest.mark.parametrize("store", STORES)
def test_a_store_whose_directories_were_just_made_is_there_after_a_power_loss(memory: Path, store: str) -> None:
    fs = STORES[store](memory / "made")
    search = Search(memory / "crash", random.Random(SEED), limit=300, samples=30, settled=(f"{store}/lock",))
    search.everywhere(fs, store, Model().demand)
    count("power loss", search.tried)


def test_without_any_of_the_fsyncs_something_durable_is_lost(memory: Path) -> None:
    where: dict[str, list[tuple[str, PlacedFileSystem]]] = defaultdict(list)
    for store, fs in recordings(memory):
        for place in set(fs.places.values()):
            where[place].append((store, fs))
    assert len(where) >= 20, sorted(where)
    assert where.keys() >= FOR_SPEED_OR_PROOF.keys(), "they are gone, and can be forgotten here"
    superfluous = []
    for place in sorted(where.keys() - FOR_SPEED_OR_PROOF.keys()):
        tries = ((store, fs, limit) for limit in (30, 1000) for store, fs in where[place])
        if not any(is_missed(store, fs, place, memory / "crash", limit) for store, fs, limit in tries):
            superfluous.append(place)
    assert superfluous == [], "nothing is lost without these: a test is missing, or they are not needed"
