"""Whatever is wrong.

An error of its own type, which says what happened and what to do; nothing lost, nothing half written.
"""

from __future__ import annotations

import errno
import gc
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import trax
import trax.store
from tests.crashing import fold
from tests.helpers import reopen_and_check
from tests.test_pitfalls import Stubborn, read_tree
from trax import errors
from trax.codecs import limits
from trax.storage.local.fs import LocalFileSystem, _Removal, wait_for_removals


def test_a_path_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for mode in ("a", "r+", "r"):
        with pytest.raises(errors.NotAStoreError, match="is a file, and a store is a directory"):
            trax.Trax(tmp_path / "file", mode=mode)  # type: ignore[arg-type]
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(OSError, match="could not"):
        trax.Trax(tmp_path / "file" / "s")


def test_a_directory_with_other_files_does_not_become_a_store(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(errors.NotAStoreError, match=r"'notes\.txt'.*empty or a new"):
        trax.Trax(tmp_path)
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_a_foreign_file_in_a_store_is_left_alone_and_noted(tmp_path: Path) -> None:
    with trax.Trax(tmp_path / "s") as store:
        store.checkpoint(a=1)
        (tmp_path / "s" / "notes.txt").write_text("mine")
        (tmp_path / "s" / "blobs" / "notes.txt").write_text("mine")
        store.checkpoint(a=2)
        found = store.verify()
        assert found.ok and any("notes.txt" in note for note in found.notes)
    with reopen_and_check(tmp_path / "s") as store:
        store.checkpoint(a=3)
    assert (tmp_path / "s" / "notes.txt").read_text() == (tmp_path / "s" / "blobs" / "notes.txt").read_text() == "mine"


def test_directories_that_a_copy_left_out_because_they_are_empty_are_made_again(tmp_path: Path) -> None:
    with trax.Trax(tmp_path / "s") as store:
        store.checkpoint(a=1)
    (tmp_path / "s" / "blobs").rmdir()
    (tmp_path / "s" / "kept").rmdir()
    with trax.Trax(tmp_path / "s", keep=2) as store:
        store.checkpoint(a="x" * 5000)
        store.checkpoint(a="y" * 5000)
    with reopen_and_check(tmp_path / "s") as store:
        assert store.recover("a") == "y" * 5000


@pytest.mark.parametrize("what", ["segment", "blob", "kept"])
def test_a_missing_file_is_named(tmp_path: Path, what: str) -> None:
    with trax.Trax(tmp_path / "s", keep=2) as store:
        store.checkpoint(a="x" * 5000)
        store.checkpoint(b=1)
        store.log(b=2)
    pattern = {"segment": "log.*", "blob": "blobs/*", "kept": "kept/*"}[what]
    gone = max((tmp_path / "s").glob(pattern))
    gone.unlink()
    before = read_tree(tmp_path / "s")
    with pytest.raises(errors.MissingFileError, match="Restore the store from a copy") as caught:
        with trax.Trax(tmp_path / "s") as store:
            store.recover("a")
    assert caught.value.path == str(gone)
    assert isinstance(caught.value, FileNotFoundError)
    if what == "kept":
        assert {name: read_tree(tmp_path / "s")[name] for name in before if name.startswith("log")} == {
            name: data for name, data in before.items() if name.startswith("log")
        }


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_a_directory_that_can_not_be_written(tmp_path: Path, number: int) -> None:
    with trax.Trax(tmp_path / "s") as store:
        store.checkpoint(a=1)
    denied = OSError(number, os.strerror(number))
    fs = Stubborn(create=lambda *_: denied, open=lambda path, **_: denied if path.endswith("lock") else None)
    with pytest.raises(errors.ReadOnlyError, match="mounted read-only") as caught:
        trax.Trax(tmp_path / "s", fs=fs)
    assert caught.value.errno == number and isinstance(caught.value, PermissionError)
    with trax.Trax(tmp_path / "s", mode="r") as reader:
        assert reader.recover("a") == 1


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of one megabyte, or of so many as the test says."""
    megabytes = getattr(request, "param", 1)
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small disk needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small disk can't be mounted here: {mounted.stderr.strip()}")
    yield disk
    gc.collect()  # a test that failed has left its store open
    wait_for_removals()
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("sync", ["always", "os"])
def test_a_full_disk_loses_nothing_and_can_be_made_room_on(small_disk: Path, sync: str) -> None:
    (small_disk / "filler").write_bytes(bytes(100_000))
    store = trax.Trax(small_disk / "s", sync=sync)  # type: ignore[arg-type]
    store.checkpoint(a=[])
    logged = 0
    with pytest.raises(errors.DiskFullError, match="free some space and repeat the call") as caught:
        while logged < 10_000:
            store.log(a="x" * 1000)
            logged += 1
    assert caught.value.errno == errno.ENOSPC and logged > 100
    with pytest.raises(errors.DiskFullError):
        store.checkpoint(b=np.zeros(1 << 18))
    with pytest.raises(errors.DiskFullError):
        store.checkpoint_async(b=np.zeros(1 << 18)).result()
    with pytest.raises(errors.DiskFullError):
        store.log(a="the failure of a background checkpoint surfaces at the next call")
    assert len(store.recover("a", None, fold)) == logged
    (small_disk / "filler").unlink()
    store.checkpoint(a=["folded"])  # which gives the log's space back
    for _ in range(50):
        store.log(a="y" * 1000)
    store.close()
    with reopen_and_check(small_disk / "s") as store:
        assert store.recover("a", None, fold) == ["folded", *["y" * 1000] * 50]


@pytest.mark.parametrize("small_disk", [40], indirect=True)
def test_a_save_waits_for_the_space_of_the_value_it_replaces(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file before the last is removed, but the system is slow to free what it takes."""

    def slowly(removal: _Removal) -> None:
        time.sleep(0.5)
        removal._fd.close()

    monkeypatch.setattr(_Removal, "run", slowly)
    with trax.Trax(small_disk / "s") as store:
        for number in range(4):
            store.checkpoint(a=np.full(1 << 21, float(number)))
            assert len(list((small_disk / "s" / "blobs").iterdir())) == 1, "the name is gone at once"
        with pytest.raises(errors.DiskFullError):
            store.checkpoint(b=np.zeros(1 << 22))
    assert not wait_for_removals(), "close() has waited, so that the disk can be unmounted"
    with reopen_and_check(small_disk / "s") as store:
        assert (store.recover("a") == 3.0).all()


@pytest.mark.parametrize("can_start", [True, False], ids=["", "no new threads"])
def test_a_removed_file_is_let_go_of(tmp_path: Path, can_start: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    path = tmp_path / "large"
    path.write_bytes(bytes(1 << 23))
    with path.open("rb") as held:
        if not can_start:
            monkeypatch.setattr(_Removal, "start", refuse)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            LocalFileSystem().unlink(str(path))
            assert not path.exists()
            wait_for_removals()
        assert warned == []
        inode = os.fstat(held.fileno()).st_ino
        others = [fd for fd in os.listdir("/proc/self/fd") if int(fd) != held.fileno() and _inode(fd) == inode]
    assert others == []


def _inode(fd: str) -> int | None:
    try:
        return os.fstat(int(fd)).st_ino
    except OSError:  # the directory that is listed was among them
        return None


def test_a_buffered_record_that_found_no_room_is_not_forgotten(tmp_path: Path) -> None:
    full = threading.Event()
    fs = Stubborn(pwrite=lambda *_: OSError(errno.ENOSPC, "x") if full.is_set() else None)
    with trax.Trax(tmp_path / "s", sync="os", buffer_bytes=1000, fs=fs) as store:
        store.checkpoint(a=[])
        full.set()
        accepted = []
        for number in range(100):
            try:
                store.log(a=[number, "x" * 90])
                accepted.append(number)
            except errors.DiskFullError:
                pass
        assert 5 < len(accepted) < 100
        full.clear()
        store.log(a=[100, ""])
        assert [entry[0] for _, entry in store.entries("a")] == [*accepted, 100]


def test_values_that_are_too_large_are_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_ENTRY_BYTES", 2_000_000)
    monkeypatch.setattr(trax.encoding, "MAX_COMMIT_BYTES", 3_000_000)
    with trax.Trax(tmp_path / "s") as store:
        with pytest.raises(errors.ValueTooLargeError, match="checkpoint"):
            store.log(a=bytes(2_000_001))
        with pytest.raises(errors.ValueTooLargeError, match="split it"):
            store.log(a=bytes(1_900_000), b=bytes(1_900_000))
        with pytest.raises(errors.ValueTooLargeError, match="split it"), store.batch() as batch:
            batch.log(a=bytes(1_900_000))
            batch.log(a=bytes(1_900_000))
        assert store.last_sequence == 0
        store.checkpoint(a=bytes(100_000))
        assert store.recover("a") == bytes(100_000)


def test_windows_is_refused_with_a_clear_message() -> None:
    script = "import importlib, sys, trax.storage.local.fs as fs\nsys.platform = 'win32'\nimportlib.reload(fs)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert run.returncode == 1 and "has not been tested on Windows" in run.stderr.splitlines()[-1]


def test_a_directory_that_is_moved_away_from_under_its_writer(tmp_path: Path) -> None:
    store = trax.Trax(tmp_path / "s")
    store.checkpoint(a=1)
    (tmp_path / "s").rename(tmp_path / "moved")
    with pytest.raises(trax.TraxError):
        store.log(a=2)
    with pytest.raises(trax.TraxError):
        store.checkpoint(a=2)
    store.close()
    with reopen_and_check(tmp_path / "moved") as moved:
        assert moved.recover("a") in (1, 2)


def test_too_many_open_files_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    class Exhausted(LocalFileSystem):
        left = -1

        def open(self, path: str, *, write: bool = False) -> int:
            if "blobs" in path and self.left == 0:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            self.left -= "blobs" in path
            return super().open(path, write=write)

    with trax.Trax(tmp_path / "s", fs=(fs := Exhausted())) as store:
        store.checkpoint({f"{number}": bytes(100_000) for number in range(3)})
        fs.left = 2
        with pytest.raises(errors.StorageError, match=r"fewer names at once, or raise the limit \(ulimit -n\)"):
            store.recover_many("012")
        fs.left = -1
        assert len(store.recover_many("012")) == 3
