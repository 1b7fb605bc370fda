"""A reader beside a live writer sees pages as they were a moment ago: that is no damage, and what stays bad is."""

from __future__ import annotations

from pathlib import Path

import pytest

import trax
from trax.errors import CorruptionError
from trax.inspection import verify_store
from trax.storage.local.framing import FRAME_HEADER_BYTES
from trax.storage.local.fs import LocalFileSystem


class LateFileSystem(LocalFileSystem):
    """Shows ``old`` at an offset of a file instead of what is there now, so many ``times``."""

    def __init__(self, file: Path, offset: int, old: bytes, times: int) -> None:
        self.file, self.offset, self.old, self.times = file, offset, old, times
        self.shown = self.reads = 0

    def pread(self, fd: int, nbytes: int, offset: int) -> bytes:
        data = super().pread(fd, nbytes, offset)
        place = self.offset - offset
        if self.identity_of(fd) == self.identity(str(self.file)) and 0 <= place <= len(data) - len(self.old):
            self.reads += 1
            if self.shown < self.times:
                self.shown += 1
                data = data[:place] + self.old + data[place + len(self.old) :]
        return data


def replaced_mark(path: Path) -> tuple[trax.Trax, int, bytes]:
    """A live writer behind a mark that it has replaced: where that stands, and what stood there before."""
    with trax.Trax(path) as store:
        store.checkpoint(a=0)
        store.log(a=1)
    segment = path / "log.00000001"
    before = segment.read_bytes()
    store = trax.Trax(path)
    store.log(a=2)
    store.log(a=3)  # its frame says that the one before it was synced: damage there is no tear
    offset = len(before) - FRAME_HEADER_BYTES
    old = before[offset:]
    assert segment.read_bytes()[offset : offset + len(old)] != old, "the mark was replaced"
    return store, offset, old


def test_a_mark_that_is_being_replaced_is_not_taken_for_damage(tmp_path: Path) -> None:
    """The old mark is whole, but what follows was written behind the new one: only a look at both tells."""
    store, offset, old = replaced_mark(tmp_path / "s")
    fs = LateFileSystem(tmp_path / "s" / "log.00000001", offset, old, times=1)
    with store, trax.Trax(tmp_path / "s", mode="r", fs=fs) as reader:
        assert [entry for _, entry in reader.entries("a")] == [1, 2, 3], "each once, and none is missing"
        assert fs.shown == 1 and fs.reads > 1, "it has seen the old one, and has looked again"


def test_neither_does_verifying_the_store_of_a_live_writer_take_it_for_damage(tmp_path: Path) -> None:
    store, offset, old = replaced_mark(tmp_path / "s")
    fs = LateFileSystem(tmp_path / "s" / "log.00000001", offset, old, times=1)
    with store:
        found = verify_store(tmp_path / "s", fs=fs)
    assert found.problems == [] and found.records == 3
    assert fs.shown == 1 and fs.reads > 1


def test_a_mark_that_stays_the_old_one_is_damage_for_a_reader_too(tmp_path: Path) -> None:
    store, offset, old = replaced_mark(tmp_path / "s")
    fs = LateFileSystem(tmp_path / "s" / "log.00000001", offset, old, times=100)
    with store, trax.Trax(tmp_path / "s", mode="r", fs=fs) as reader:
        found = []
        with pytest.raises(CorruptionError) as raised:
            for _, entry in reader.entries("a"):
                found.append(entry)
        assert found == [1] and raised.value.offset == offset + len(old)
        assert 1 < fs.reads < 10, "it has looked twice, and not for ever"
