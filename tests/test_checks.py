"""Each check of what is read, with the one case that it is there for."""

from __future__ import annotations

import errno
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trax
from tests import reseal
from tests.helpers import kill, reopen_and_check
from trax.codecs.base import Encoded
from trax.errors import CorruptionError, FencedError, MissingFileError, StoreLockedError
from trax.inspection import verify_store
from trax.storage.local.blob import write_blob
from trax.storage.local.blob_reader import BlobReader
from trax.storage.local.framing import FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES
from trax.storage.local.fs import LocalFileSystem
from trax.storage.local.segment import Manner, SegmentWriter, create_segment
from trax.storage.local.walk import Walk

ID = bytes(16)


def saved(path: Path) -> None:
    """A store with a sealed segment that is still needed, an active one, and a kept snapshot."""
    with trax.Trax(path, keep=2) as store:
        store.checkpoint(a=1, b=1)
        store.log(a=2, b=2)
        store.checkpoint(a=3)


def flipped(data: bytes, byte: int, bit: int) -> bytes:
    return data[:byte] + bytes([data[byte] ^ 1 << bit]) + data[byte + 1 :]


@pytest.mark.parametrize(("file", "nbytes"), [("snapshot", 32), ("log.00000001", SEGMENT_HEADER_BYTES)])
def test_every_bit_of_a_header_counts(tmp_path: Path, file: str, nbytes: int) -> None:
    """Also of what is reserved, and of what another checksum covers too."""
    saved(tmp_path / "s")
    whole = (tmp_path / "s" / file).read_bytes()
    for byte in range(nbytes):
        for bit in (0, 7):
            (tmp_path / "s" / file).write_bytes(flipped(whole, byte, bit))
            problems = trax.Trax(tmp_path / "s", mode="r").verify().problems if file != "snapshot" else []
            with pytest.raises((CorruptionError, trax.errors.FormatError)):
                trax.Trax(tmp_path / "s")
            assert problems or file == "snapshot"
    (tmp_path / "s" / file).write_bytes(whole)
    reopen_and_check(tmp_path / "s").close()


def test_a_segment_of_another_history_of_the_same_store_is_not_its_own(tmp_path: Path) -> None:
    """Two copies of a store go on apart, and both make a segment of the same number."""
    with trax.Trax(tmp_path / "one") as store:
        store.checkpoint(a=1)
        store.log(a=2)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    for name in ("one", "two"):
        with trax.Trax(tmp_path / name) as store:
            store.checkpoint(a=3)
            store.log(a=name)
    last = max((tmp_path / "one").glob("log.*")).name
    shutil.copy(tmp_path / "two" / last, tmp_path / "one" / last)
    with pytest.raises(CorruptionError, match="older state"):
        trax.Trax(tmp_path / "one")


def test_a_segment_of_another_store_is_no_sign_of_a_later_snapshot(tmp_path: Path) -> None:
    with trax.Trax(tmp_path / "s") as store:
        store.checkpoint(a=1)
    with trax.Trax(tmp_path / "other") as store:
        store.checkpoint(a=1)
        store.log(a=2)
    shutil.copy(tmp_path / "other" / "log.00000001", tmp_path / "s" / "log.00000009")
    with trax.Trax(tmp_path / "s") as store:
        assert store.recover("a") == 1


def test_a_blob_says_which_value_it_is(tmp_path: Path) -> None:
    """The seal could be the same by chance, one in four thousand million."""
    fs = LocalFileSystem()
    fd = fs.create(str(tmp_path / "blob"))
    reference = write_blob(fs, fd, ID, 7, Encoded(b"head", ()))
    assert BlobReader(fs, fd, "blob", ID, reference).head == b"head"
    for other, number in ((b"x" * 16, 7), (ID, 8)):
        with pytest.raises(CorruptionError, match="another store or to another value"):
            BlobReader(fs, fd, "blob", other, reference._replace(number=number))
    fs.close(fd)


@pytest.mark.parametrize("mmap", [False, True])
def test_the_first_bad_place_of_a_large_value_is_named_whichever_thread_meets_it(tmp_path: Path, mmap: bool) -> None:
    mebibyte, begin = 1 << 20, 1 << 16
    array = np.frombuffer(bytes(range(256)) * 4096 * 12 + b"end", dtype=np.uint8)  # large bytes are never mapped
    with trax.Trax(tmp_path / "s") as store:
        store.checkpoint(x=array)
        found = store.recover("x", mmap=mmap)
        assert np.array_equal(found, array) and found.flags.owndata != mmap
    (blob,) = (tmp_path / "s" / "blobs").iterdir()
    whole = blob.read_bytes()
    for bad in ([0], [5], [6], [12], [3, 9], [9, 3], [7, 11]):
        data = bytearray(whole)
        for place in bad:
            data[begin + place * mebibyte + (1 if place == 12 else 1000)] ^= 1
        blob.write_bytes(data)
        with trax.Trax(tmp_path / "s", mode="r") as store, pytest.raises(CorruptionError) as caught:
            store.recover("x", mmap=mmap)
        assert caught.value.offset == begin + min(bad) * mebibyte


def test_a_first_segment_that_a_writer_has_opened_had_a_snapshot(tmp_path: Path) -> None:
    """No record, only the mark of a writer: without its snapshot it is no place for a new store."""
    trax.Trax(tmp_path / "s").close()
    kill(trax.Trax(tmp_path / "s", sync="os"))
    assert (tmp_path / "s" / "log.00000001").stat().st_size == SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES
    (tmp_path / "s" / "snapshot").unlink()
    with pytest.raises(MissingFileError):
        trax.Trax(tmp_path / "s")


def test_what_is_written_during_a_sync_is_not_proven_by_it(tmp_path: Path) -> None:
    class Busy(LocalFileSystem):
        writes = False

        def fdatasync(self, fd: int) -> None:
            super().fdatasync(fd)
            if self.writes:
                writer.append(2, [[{"a": b"2"}]])

    fs = Busy()
    writer = create_segment(fs, str(tmp_path / "log"), ID, 1, mode=None, manner=Manner(1, False, False), sequence=0)
    writer.append(1, [[{"a": b"1"}]])
    before = writer.tail.offset
    fs.writes = True
    writer.sync()
    assert writer.synced == before < writer.tail.offset
    fs.close(writer.fd)


def test_a_lock_file_that_was_replaced_while_it_was_being_locked_locks_nothing(tmp_path: Path) -> None:
    trax.Trax(tmp_path / "s").close()

    class Slow(LocalFileSystem):
        replaced = False

        def lock(self, fd: int) -> bool:
            if not self.replaced:
                self.replaced = True
                (tmp_path / "s" / "lock").unlink()
                (tmp_path / "s" / "lock").touch()
            return super().lock(fd)

    with trax.Trax(tmp_path / "s", fs=Slow()):
        with pytest.raises(StoreLockedError):
            trax.Trax(tmp_path / "s")


class WithoutLocks(LocalFileSystem):
    def lock(self, fd: int) -> bool:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def test_an_owner_file_that_another_has_taken_over_meanwhile_is_not_taken_from_it(tmp_path: Path) -> None:
    owner = tmp_path / "s" / "owner"
    with warnings.catch_warnings(action="ignore"):
        kill(trax.Trax(tmp_path / "s", fs=WithoutLocks()))
        gone = owner.read_bytes().replace(str(os.getpid()).encode(), str(2**22 + 1).encode())
        owner.write_bytes(gone)

        class Slower(WithoutLocks):
            def rename(self, source: str, target: str) -> None:
                if source == str(owner):  # another process has judged the same file, and was faster
                    owner.write_bytes(gone.replace(str(2**22 + 1).encode(), b"1"))
                super().rename(source, target)

        with pytest.raises(StoreLockedError, match="try again"):
            trax.Trax(tmp_path / "s", fs=Slower())


class LocksThatLie(LocalFileSystem):
    """Everybody gets the lock."""

    def lock(self, fd: int) -> bool:
        return True


def test_a_writer_that_is_replaced_while_it_publishes_acknowledges_nothing(tmp_path: Path) -> None:
    second: list[trax.Trax] = []

    class Paused(LocksThatLie):
        renamed = False

        def rename(self, source: str, target: str) -> None:
            super().rename(source, target)
            self.renamed = True

        def fsync_directory(self, path: str) -> None:
            super().fsync_directory(path)
            if self.renamed and first and not second:
                second.append(trax.Trax(tmp_path / "s", fs=LocksThatLie()))

    fs = Paused()
    first: list[trax.Trax] = []
    first.append(trax.Trax(tmp_path / "s", fs=fs))
    fs.renamed = False
    with pytest.raises(FencedError):
        first[0].checkpoint(a=2)
    assert second[0].recover("a") == 2, "it may be there, but it was not acknowledged"
    second[0].close()


def test_a_writer_that_was_replaced_removes_no_file(tmp_path: Path) -> None:
    """It has written a blob and can't publish it: another may have given the same number to a blob of its own."""
    first = trax.Trax(tmp_path / "s", fs=LocksThatLie())
    first.checkpoint(a=1)
    with trax.Trax(tmp_path / "s", fs=LocksThatLie()) as second:
        with pytest.raises(FencedError):
            first.checkpoint(a="x" * 5000)
        written = sorted(path.name for path in (tmp_path / "s" / "blobs").iterdir())
        assert written == ["00000001"], "it stays until the next opening sweeps it"
        first.close()
        assert second.recover("a") == 1
    reopen_and_check(tmp_path / "s").close()


class Restless(LocalFileSystem):
    """Whenever a blob is opened, the store is first given another snapshot, which does without that blob."""

    def __init__(self, store: trax.Trax) -> None:
        self.store = store
        self.rounds = 0

    def open(self, path: str, *arguments: Any) -> int:
        if "blobs" in path:
            self.rounds += 1
            self.store.checkpoint(a=b"x" * 20_000)
        return super().open(path, *arguments)


def test_what_a_writer_removes_while_a_store_is_verified_is_no_damage(tmp_path: Path) -> None:
    with trax.Trax(tmp_path / "s") as store:
        store.checkpoint(a=b"x" * 20_000)
        found = verify_store(tmp_path / "s", fs=(fs := Restless(store)))
        assert fs.rounds == 5
        assert found.ok, found.problems
        assert found.notes == ["a writer replaced the snapshot all the while: what it removed was not read"]
        store.checkpoint(b=b"y" * 20_000)
        blob = Path(store._storage._layout.blob(store._storage.names["b"].value.number))  # type: ignore[union-attr]
        data = bytearray(blob.read_bytes())
        data[1000] ^= 1
        blob.write_bytes(data)
        found = verify_store(tmp_path / "s", fs=Restless(store))
        assert [problem.path for problem in found.problems] == [str(blob)]
        blob.unlink()
        found = verify_store(tmp_path / "s", fs=Restless(store))
        assert [type(problem) for problem in found.problems] == [MissingFileError]


def a_segment(path: Path) -> tuple[LocalFileSystem, SegmentWriter, Callable[[], Walk]]:
    fs = LocalFileSystem()
    writer = create_segment(fs, str(path), ID, 1, mode=None, manner=Manner(1, False, False), sequence=0)
    start = writer.tail
    return fs, writer, lambda: Walk(fs, writer.fd, writer.path, writer.salt, start, fs.size(writer.fd))


def test_what_a_frame_says_to_be_synced_does_not_reach_beyond_it(tmp_path: Path) -> None:
    fs, writer, walk_it = a_segment(tmp_path / "log")
    writer.append(1, [[{"a": b"1"}]])
    behind_the_first = writer.tail.offset
    writer.synced = 1 << 40
    writer.append(2, [[{"a": b"2"}]])
    walk = walk_it()
    assert len([*walk]) == 2
    assert walk.proven == behind_the_first
    fs.close(writer.fd)


def test_a_frame_whose_sequence_is_not_above_that_of_the_one_before_it_ends_the_log(tmp_path: Path) -> None:
    fs, writer, walk_it = a_segment(tmp_path / "log")
    writer.append(5, [[{"a": b"1"}]])
    writer.append(5, [[{"a": b"2"}]])
    walk = walk_it()
    assert [frame.header.first_sequence for frame in walk] == [5]
    assert walk.fault == "the frame's sequence is not above the one before it"
    fs.close(writer.fd)


@pytest.mark.parametrize("field", ["offset", "chain", "sequence"])
def test_a_sealed_segment_ends_as_the_snapshot_says(tmp_path: Path, field: str) -> None:
    with trax.Trax(tmp_path / "s") as store:
        store.checkpoint(a=[])
        store.log(a=1)
        store.log(a=2)
        store.checkpoint(b=1)
    snapshot = reseal.Snapshot.parse((tmp_path / "s" / "snapshot").read_bytes())
    sealed = next(one for one in snapshot.body[1] if one[2] is not None)
    sealed[2][["offset", "chain", "sequence"].index(field)] += 1
    (tmp_path / "s" / "snapshot").write_bytes(snapshot.pack())
    with trax.Trax(tmp_path / "s", mode="r") as store, pytest.raises(CorruptionError):
        store.recover("a")


@pytest.mark.parametrize("what", ["epoch", "checkpoint"])
def test_verify_finds_an_older_snapshot_by_what_stands_in_the_log(tmp_path: Path, what: str) -> None:
    """An opening, or a checkpoint of a store that has logged nothing, leaves no new segment."""
    path = tmp_path / "s"
    with trax.Trax(path) as store:
        store.checkpoint(a=1)
        older = (path / "snapshot").read_bytes()
        if what == "checkpoint":
            store.checkpoint(a=2)
    if what == "epoch":
        with trax.Trax(path) as store:
            store.log(a=3)
    (path / "snapshot").write_bytes(older)
    found = verify_store(path)
    assert "an older copy of it was put back" in str(found.problems[0])
    assert {problem.path for problem in found.problems} == {str(path / "snapshot")}


def sealed_again(path: Path, change: Callable[[Any, Any], None]) -> None:
    """Change the head and the segments of the snapshot, and make its checksums right again."""
    snapshot = reseal.Snapshot.parse((path / "snapshot").read_bytes())
    change(snapshot.body[0], snapshot.body[1])
    (path / "snapshot").write_bytes(snapshot.pack())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda head, segments: head.__setitem__(3, 10**19), "a number that is too large"),
        (lambda head, segments: head.__setitem__(4, 2**32), "a number that is too large"),
        (lambda head, segments: head.__setitem__(5, 2**64 - 1), None),
        (lambda head, segments: head.__setitem__(7, 10**19), "a number that is too large"),
        (lambda head, segments: head.__setitem__(8, 10**19), "a number that is too large"),
        (lambda head, segments: head.__setitem__(0, head[0][:15]), "the fields do not fit together"),
        (lambda head, segments: head.__setitem__(2, 0), "the fields do not fit together"),
        (lambda head, segments: segments[0].__setitem__(2, [100, 1, 1]), "the fields do not fit together"),
        (lambda head, segments: segments.clear(), "the fields do not fit together"),
    ],
)
def test_a_snapshot_that_no_writer_makes_is_refused_though_its_checksums_are_right(
    tmp_path: Path, change: Callable[[Any, Any], None], reason: str | None
) -> None:
    with trax.Trax(tmp_path / "s") as store:
        store.checkpoint(a=1)
    sealed_again(tmp_path / "s", change)
    with pytest.raises(CorruptionError, match=reason or "no room"):
        if reason is None:
            trax.Trax(tmp_path / "s")
        else:
            trax.Trax(tmp_path / "s", mode="r")
