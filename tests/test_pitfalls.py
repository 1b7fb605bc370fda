"""What has broken stores of this kind: one test, at least, for each failure that a real system has had."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trax
from tests.crashing import fold
from tests.helpers import kill, reopen_and_check
from trax import errors
from trax.storage.local import compaction
from trax.storage.local.fs import LocalFileSystem
from trax.testing.disks import crash_images
from trax.testing.faults import FaultyFileSystem, os_error
from trax.testing.recording import RecordingFileSystem

EIO = os_error(errno.EIO)


class Stubborn(LocalFileSystem):
    """Fails where a test has put a function in the place of a method."""

    def __init__(self, **methods: Any) -> None:
        self.on = True
        for name, method in methods.items():
            setattr(self, name, self._wrapped(method, getattr(LocalFileSystem, name)))

    def _wrapped(self, method: Any, original: Any) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            if self.on and (error := method(*arguments)) is not None:
                raise error
            return original(self, *arguments, **keywords)

        return call


def test_old_files_are_removed_only_when_the_new_snapshot_is_durable(tmp_path: Path) -> None:
    """Killed between rename and directory fsync; the next opening must not trust the rename, and then remove files."""
    fs = RecordingFileSystem(tmp_path)
    with trax.Trax(tmp_path / "s", fs=fs) as store:
        store.checkpoint(a="x" * 5000)
        store.checkpoint(a="y" * 5000)
    renamed = [n for n, one in enumerate(fs.operations) if one.kind == "rename"][-1]
    synced = next(n for n, one in enumerate(fs.operations) if one.kind == "fsync_directory" and n > renamed)
    removed = [n for n, one in enumerate(fs.operations) if one.kind == "unlink" and "blobs" in one.path]
    assert removed and min(removed) > synced


def test_a_directory_fsync_that_fails_after_the_rename_deletes_nothing(tmp_path: Path) -> None:
    fs = Stubborn(fsync_directory=lambda path: OSError(errno.EIO, "x") if os.path.exists(tmp_path / "armed") else None)
    store = trax.Trax(tmp_path / "s", fs=fs)
    store.checkpoint(a="x" * 5000)
    published = store._writer.storage._commit_point  # type: ignore[union-attr]
    write_new = published._write_new

    def write_new_and_arm(snapshot: Any) -> int:
        fd = write_new(snapshot)
        (tmp_path / "armed").touch()
        return fd

    published._write_new = write_new_and_arm  # type: ignore[method-assign]
    with pytest.raises(errors.FinishedError, match="Open the store again"):
        store.checkpoint(a="y" * 5000)
    assert len(list((tmp_path / "s" / "blobs").iterdir())) == 2
    (tmp_path / "armed").unlink()
    for call in (lambda: store.log(a=1), lambda: store.checkpoint(a=1), store.sync):
        with pytest.raises(errors.FinishedError):
            call()
    store.close()
    with reopen_and_check(tmp_path / "s") as again:
        assert again.recover("a") in ("x" * 5000, "y" * 5000)


@pytest.mark.parametrize("sync", ["always", "interval", "os"])
def test_a_failed_fsync_ends_the_handle_for_every_thread(tmp_path: Path, sync: str) -> None:
    failing = threading.Event()
    fs = Stubborn(fdatasync=lambda fd: OSError(errno.EIO, "x") if failing.is_set() else None)
    store = trax.Trax(tmp_path / "s", sync=sync, sync_interval_s=0.01, fs=fs)  # type: ignore[arg-type]
    store.checkpoint(a=[])
    failing.set()
    seen: list[BaseException] = []

    def work() -> None:
        try:
            while True:
                store.log(a=1)
                if sync == "os":
                    store.sync()
        except trax.TraxError as error:
            seen.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(20)
        assert not one.is_alive(), "a follower of a failed group commit must not wait for ever"
    assert len(seen) == 6
    assert {type(error) for error in seen} == {errors.FinishedError}
    failing.clear()  # the second fsync would "succeed", though the pages may be gone
    before = (store.durable_sequence, read_tree(tmp_path / "s"))
    for call in (lambda: store.log(a=1), store.sync, lambda: store.checkpoint(a=[])):
        with pytest.raises(errors.FinishedError):
            call()
    assert (store.durable_sequence, read_tree(tmp_path / "s")) == before
    store.close()
    reopen_and_check(tmp_path / "s").close()


def read_tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_what_only_the_page_cache_has_is_written_again_before_it_is_relied_on(tmp_path: Path) -> None:
    """The disk lost the pages of a failed fsync; the page cache shows them to the next process, as clean pages."""
    fs = RecordingFileSystem(tmp_path)
    store = trax.Trax(tmp_path / "s", fs=fs)
    store.checkpoint(a=[])
    store.log(a=1)
    lost = len(fs.operations)
    store.log(a=2)
    kill(store)
    dropped = [one for one in fs.operations[lost:] if one.kind not in ("write", "fsync")]
    assert len(dropped) < len(fs.operations[lost:])
    fs.operations[lost:] = dropped
    with trax.Trax(tmp_path / "s", fs=fs) as store:
        assert store.recover("a", None, fold) == [1, 2]
        store.log(a=3)
        done = len(fs.operations)
    images = [image for n, image in crash_images(fs.start, fs.operations[:done], random.Random(1), 3) if n == done]
    for number, image in enumerate(images):
        (tmp_path / f"crash{number}").mkdir()
        image.lay_out(str(tmp_path / f"crash{number}"))
        with warnings.catch_warnings(action="ignore"), trax.Trax(tmp_path / f"crash{number}" / "s") as after:
            assert after.recover("a", None, fold) == [1, 2, 3]


@pytest.mark.parametrize("sync", ["always", "os"])
def test_a_torn_tail_never_fuses_with_the_next_append(tmp_path: Path, sync: str) -> None:
    with trax.Trax(tmp_path / "s") as store:
        store.checkpoint(a=[])
    expected: list[int] = []
    for number in range(8):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            store = trax.Trax(tmp_path / "s", sync=sync)  # type: ignore[arg-type]
        assert sum(one.category is errors.TornTailWarning for one in caught) == (number > 0)
        assert (store.stats()["torn_bytes"] != 0) == (number > 0)
        assert store.recover("a", None, fold) == expected
        store.log(a=number)
        expected.append(number)
        log = max((tmp_path / "s").glob("log.*"))
        whole = store._writer.storage._writer.tail.offset  # type: ignore[union-attr]
        kill(store)
        data = log.read_bytes()[:whole]
        log.write_bytes(data + data[-60:-5])
    with pytest.warns(errors.TornTailWarning):
        reopen_and_check(tmp_path / "s").close()


def test_a_harmless_tear_is_dealt_with_once(tmp_path: Path) -> None:
    """And does not make every later opening or call write a checkpoint (beats#35893)."""
    with trax.Trax(tmp_path / "s") as store:
        store.checkpoint(a=[])
        store.log(a=1)
    log = max((tmp_path / "s").glob("log.*"))
    log.write_bytes(log.read_bytes() + b"torn")
    with pytest.warns(errors.TornTailWarning), trax.Trax(tmp_path / "s") as store:
        store.recover("a")
    fs = FaultyFileSystem(kinds=("rename",))
    with warnings.catch_warnings(action="error"), trax.Trax(tmp_path / "s", fs=fs) as store:
        for number in range(5):
            store.log(a=number)
    assert fs.count == 1, "one rename for the new epoch, none for anything else"


def test_a_damaged_snapshot_is_an_error_and_not_an_empty_store(tmp_path: Path) -> None:
    with trax.Trax(tmp_path / "s") as store:
        store.checkpoint(a=[1])
    snapshot = tmp_path / "s" / "snapshot"
    data = snapshot.read_bytes()
    for damaged in (b"", data[:10], data[:-1], data[:40] + b"\xff" + data[41:], b"\0" * len(data), b"{}"):
        snapshot.write_bytes(damaged)
        before = read_tree(tmp_path / "s")
        for mode in ("a", "r+", "r"):
            with pytest.raises(errors.CorruptionError, match=r"damaged.*trax repair"):
                trax.Trax(tmp_path / "s", mode=mode)  # type: ignore[arg-type]
        before.pop("lock")
        after = read_tree(tmp_path / "s")
        after.pop("lock")
        assert after == before
    snapshot.unlink()
    with pytest.raises(errors.MissingFileError, match="snapshot is gone"):
        trax.Trax(tmp_path / "s")


@pytest.mark.parametrize("failing", ["rename", "fsync_directory", "fsync", "create"])
def test_the_log_is_not_truncated_when_the_checkpoint_did_not_become_durable(tmp_path: Path, failing: str) -> None:
    armed = threading.Event()
    fs = Stubborn(**{failing: lambda *arguments: OSError(errno.EIO, "x") if armed.is_set() else None})
    store = trax.Trax(tmp_path / "s", fs=fs)
    store.checkpoint(a=[])
    store.log(a=1)
    armed.set()
    with pytest.raises(OSError, match=r"."):
        store.checkpoint(a=[1])
    armed.clear()
    try:
        assert store.recover("a", None, fold) == [1]
        store.log(a=2)
    except errors.FinishedError:
        assert failing == "rename"
    store.close()
    with reopen_and_check(tmp_path / "s") as again:
        assert again.recover("a", None, fold)[:1] == [1]


@pytest.mark.parametrize("method", ["pread", "preadinto"])
def test_a_read_that_fails_is_neither_the_end_nor_damage(tmp_path: Path, method: str) -> None:
    with trax.Trax(tmp_path / "s") as store:
        store.checkpoint(a=np.arange(50_000), b=[])
        for number in range(100):
            store.log(b=number)
    counting = FaultyFileSystem(kinds=(method,))
    with trax.Trax(tmp_path / "s", mode="r", fs=counting) as reader:
        expected = (reader.recover("a").sum(), reader.recover("b", None, fold))
    assert counting.count > 0
    for nth in range(counting.count):
        before = read_tree(tmp_path / "s")
        with pytest.raises(errors.StorageError, match="Input/output error"):
            fs = FaultyFileSystem(nth, EIO, kinds=(method,))
            with trax.Trax(tmp_path / "s", mode="r", fs=fs) as reader:
                assert (reader.recover("a").sum(), reader.recover("b", None, fold)) == expected
        assert read_tree(tmp_path / "s") == before


def test_names_are_recovered_to_one_point_in_time(tmp_path: Path) -> None:
    """Damage in the middle is an error, not a gap in the names that happened to lie there (RocksDB #2900)."""
    with trax.Trax(tmp_path / "s") as store:
        store.checkpoint(a=[], b=[])
        for number in range(20):
            store.log({"a" if number % 2 else "b": number})
    log = max((tmp_path / "s").glob("log.*"))
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(data)
    with pytest.raises(errors.CorruptionError) as caught:
        trax.Trax(tmp_path / "s")
    assert caught.value.path == str(log) and caught.value.offset is not None and 2 <= (caught.value.sequence or 0) <= 22
    with trax.Trax(tmp_path / "s", mode="r") as reader:
        for name in "ab":
            with pytest.raises(errors.CorruptionError):
                reader.recover(name)


def test_a_paused_writers_lock_is_never_stolen(tmp_path: Path) -> None:
    script = f"import sys, trax; s = trax.Trax({str(tmp_path / 's')!r}); print('open', flush=True); sys.stdin.read()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as holder:
        assert holder.stdout is not None and holder.stdin is not None
        assert holder.stdout.readline() == b"open\n"
        holder.send_signal(19)  # SIGSTOP
        try:
            os.utime(tmp_path / "s" / "lock", (0, 0))  # however old it looks
            for _ in range(3):
                with pytest.raises(errors.StoreLockedError, match=f"pid {holder.pid}"):
                    trax.Trax(tmp_path / "s")
        finally:
            holder.send_signal(18)  # SIGCONT
        holder.stdin.close()
    trax.Trax(tmp_path / "s").close()


def test_a_crash_anywhere_in_the_creation_leaves_a_path_that_opens(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    fs = RecordingFileSystem(tmp_path / "run")
    trax.Trax(tmp_path / "run" / "s", fs=fs).close()
    tried = 0
    for done, image in crash_images(fs.start, fs.operations, random.Random(1), 6):
        shutil.rmtree(tmp_path / "crash", ignore_errors=True)
        (tmp_path / "crash").mkdir()
        image.lay_out(str(tmp_path / "crash"))
        with warnings.catch_warnings(action="ignore"), trax.Trax(tmp_path / "crash" / "s") as store:
            assert store.names() == []
            store.checkpoint(a=1)
        reopen_and_check(tmp_path / "crash" / "s").close()
        tried += 1
        if done == len(fs.operations):
            assert (tmp_path / "crash" / "s").is_dir(), "a created store is there after a power loss"
    assert tried > 100


def test_a_store_that_was_created_survives_a_power_loss_with_the_directories_above_it(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    fs = RecordingFileSystem(tmp_path / "run")
    store = trax.Trax(tmp_path / "run" / "a" / "b" / "s", fs=fs)
    store.log(x=1)
    for done, image in crash_images(fs.start, list(fs.operations), random.Random(1), 20):
        if done == len(fs.operations):
            assert {"a", "a/b", "a/b/s"} <= image.directories
            assert "a/b/s/snapshot" in image.names
    store.close()


def test_directories_that_a_killed_attempt_has_made_are_made_durable_by_the_next(tmp_path: Path) -> None:
    """Killed between mkdir and fsync, the first attempt leaves a directory whose name only the page cache knows."""
    for nth in range(7):
        root = tmp_path / str(nth)
        root.mkdir()
        fs = RecordingFileSystem(root)
        left = iter(range(nth))

        def sync(path: str, fs: RecordingFileSystem = fs, left: Any = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            RecordingFileSystem.fsync_directory(fs, path)

        fs.fsync_directory = sync  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            trax.Trax(root / "a" / "b" / "s", fs=fs)
        del fs.fsync_directory  # type: ignore[method-assign]
        store = trax.Trax(root / "a" / "b" / "s", fs=fs)
        store.log(x=1)
        _, image = next(crash_images(fs.start, fs.operations, random.Random(1), 0, after=len(fs.operations)))
        assert {"a", "a/b", "a/b/s"} <= image.directories, f"killed at fsync {nth}: {image.directories}"
        store.close()


@pytest.mark.parametrize("sync", ["always", "os"])
def test_an_interrupt_anywhere_leaves_the_handle_usable_or_finished(tmp_path: Path, sync: str) -> None:
    counting = FaultyFileSystem(kinds=("pwrite", "fdatasync"))
    with trax.Trax(tmp_path / "count", sync=sync, fs=counting) as store:  # type: ignore[arg-type]
        opened = counting.count
        for number in range(4):
            store.log(a=number)
        logged = counting.count
    for nth in range(opened, logged):
        path = tmp_path / str(nth)
        fs = FaultyFileSystem(nth, KeyboardInterrupt, kinds=("pwrite", "fdatasync"))
        store = trax.Trax(path, sync=sync, fs=fs)  # type: ignore[arg-type]
        done = []
        for number in range(4):
            try:
                store.log(a=number)
                done.append(number)
            except KeyboardInterrupt:
                store.sync()  # the handle is usable at once, in the very except block
        found = [entry for _, entry in store.entries("a")]
        assert sorted(set(found)) == found, "in order, none twice"
        assert set(done) <= set(found) <= set(range(4))
        store.close()
        with reopen_and_check(path) as again:
            assert [entry for _, entry in again.entries("a")] == found


def test_after_an_interrupted_checkpoint_the_handle_knows_of_a_name_or_does_not(tmp_path: Path) -> None:
    finished = 0
    for nth in range(1000):
        fs = FaultyFileSystem()
        store = trax.Trax(tmp_path / str(nth), fs=fs)
        fs._nth, fs._fault = fs.count + nth, KeyboardInterrupt
        try:
            store.checkpoint(a="x" * 6000)
        except KeyboardInterrupt:
            assert ("a" in store, store.names()) in [(True, ["a"]), (False, [])]
            try:
                assert store.recover("a") == "x" * 6000 and "a" in store
            except errors.NameNotStoredError:
                assert "a" not in store
            except errors.FinishedError:  # whether it is stored is unknown, and is said to be
                finished += 1
        fs._nth, interrupted = -1, bool(fs.failed)
        with contextlib.suppress(errors.FinishedError):
            store.close()
        if not interrupted:
            break
    assert nth > 10 > finished > 0


@pytest.mark.parametrize("sync", ["always", "os"])
def test_a_signal_handler_that_calls_the_store_in_the_middle_of_a_call_does_not_hang(tmp_path: Path, sync: str) -> None:
    outcomes: list[str] = []

    def handler(*_: object) -> None:
        for call in (lambda: store.log(b=1), lambda: store.checkpoint(c=1), store.sync):
            try:
                call()
                outcomes.append("done")
            except errors.ReentrantCallError:
                outcomes.append("refused")

    armed = threading.Event()

    def interrupt(*_: object) -> None:
        if armed.is_set():
            armed.clear()
            signal.raise_signal(signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        fs = Stubborn(pwrite=interrupt, fsync_directory=interrupt)
        with trax.Trax(tmp_path / "s", sync=sync, fs=fs) as store:  # type: ignore[arg-type]
            store.checkpoint(a=0, b=0, c=0)
            for number in range(10):
                armed.set()
                store.log(a=number)
                armed.set()
                store.checkpoint(d="x" * 5000)
            assert outcomes.count("refused") >= 30
            armed.clear()
            outcomes.clear()
            signal.raise_signal(signal.SIGALRM)
            assert outcomes == ["done"] * 3
            assert store.recover("a") == 9 and store.recover("b") == store.recover("c") == 1
    finally:
        signal.signal(signal.SIGALRM, before)
    reopen_and_check(tmp_path / "s").close()


def test_an_error_of_the_callback_is_never_taken_for_corruption(tmp_path: Path) -> None:
    with trax.Trax(tmp_path / "s") as store:
        store.checkpoint(a=0)
        store.log(a=1)
        for kind in (ValueError, EOFError, OSError, KeyError):

            def replay(state: Any, entry: Any, kind: Any = kind) -> Any:
                raise kind("mine")

            with pytest.raises(kind) as caught:
                store.recover("a", None, replay)
            assert not isinstance(caught.value, trax.TraxError)
        assert store.verify().ok


def test_a_value_that_another_thread_changes_meanwhile_never_damages_the_store(tmp_path: Path) -> None:
    array = np.zeros(1 << 21, dtype=np.int64)
    ended = threading.Event()

    def change() -> None:
        while not ended.is_set():
            array[:] = array + 1

    thread = threading.Thread(target=change)
    thread.start()
    try:
        with trax.Trax(tmp_path / "s") as store:
            for _ in range(4):
                store.checkpoint(a=array)
                assert store.recover("a").shape == array.shape
    finally:
        ended.set()
        thread.join()
    reopen_and_check(tmp_path / "s").close()


def test_a_name_that_is_never_checkpointed_does_not_pin_the_log(tmp_path: Path) -> None:
    limit = 4 * compaction.LARGE_BYTES
    with trax.Trax(tmp_path / "s", sync="os") as store:
        for number in range(60):
            store.log(rare=number)
            for _ in range(10):
                store.log(often=bytes(40_000))
            store.checkpoint(often=number)
            size = sum(file.stat().st_size for file in (tmp_path / "s").glob("log.*"))
            assert size < limit, f"{size} bytes after {number} rounds"
        assert [entry for _, entry in store.entries("rare")] == list(range(60))
        assert int(store.stats()["segments"]) <= compaction.MANY_SEGMENTS + 2  # type: ignore[call-overload]
    with reopen_and_check(tmp_path / "s") as store:
        assert [entry for _, entry in store.entries("rare")] == list(range(60))
        sequences = [sequence for sequence, _ in store.entries("rare")]
        assert sequences == sorted(sequences) and sequences[1] - sequences[0] == 12


def test_a_checkpoint_of_one_name_makes_no_half_record_durable(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    fs = RecordingFileSystem(tmp_path / "run")
    store = trax.Trax(tmp_path / "run" / "s", sync="os", fs=fs)
    store.checkpoint(a=0, b=0)
    store.log(a=1, b=1)
    store.checkpoint(a=1)
    for number, (done, image) in enumerate(crash_images(fs.start, list(fs.operations), random.Random(2), 8)):
        path = tmp_path / f"crash{number}"
        path.mkdir()
        image.lay_out(str(path))
        with warnings.catch_warnings(action="ignore"), trax.Trax(path / "s") as after:
            state = tuple(after.recover(name) if name in after else None for name in "ab")
        assert state in ((None, None), (0, 0), (1, 1)), f"after {done} operations"
        shutil.rmtree(path)
    store.close()


def test_after_a_restart_everything_is_replayed_and_nothing_overwritten(tmp_path: Path) -> None:
    expected: list[int] = []
    for run in range(6):
        with trax.Trax(tmp_path / "s") as store:
            assert store.recover("a", list, fold) == expected
            sequence = store.last_sequence
            for number in range(3):
                assert store.log(a=(run, number)) > sequence
                expected.append((run, number))  # type: ignore[arg-type]
            if run % 2:
                store.checkpoint(a=expected)


@pytest.mark.parametrize("error", [errno.EAGAIN, errno.EIO, errno.EACCES])
def test_a_lock_that_can_not_be_taken_is_an_error_and_not_a_fresh_start(tmp_path: Path, error: int) -> None:
    with trax.Trax(tmp_path / "s") as store:
        store.checkpoint(a=1)
    fs = Stubborn(lock=lambda fd: OSError(error, os.strerror(error)))
    before = read_tree(tmp_path / "s")
    with pytest.raises(OSError, match="could not lock"):
        trax.Trax(tmp_path / "s", fs=fs)
    assert read_tree(tmp_path / "s") == before


def test_permissions_of_the_snapshot_are_kept_and_given_to_new_files(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with trax.Trax(tmp_path / "s", keep=2) as store:
            store.checkpoint(a="x" * 5000)
            assert stat.S_IMODE((tmp_path / "s" / "snapshot").stat().st_mode) == 0o600
        (tmp_path / "s" / "snapshot").chmod(0o640)
        with trax.Trax(tmp_path / "s") as store:
            store.checkpoint(a="y" * 5000)
            store.log(a=1)
            store.checkpoint(a="z" * 5000)
            modes = {
                file.name: stat.S_IMODE(file.stat().st_mode)
                for file in (tmp_path / "s").rglob("*")
                if file.is_file() and file.name != "lock"
            }
        assert modes["snapshot"] == 0o640
        assert modes[max(name for name in modes if name.startswith("log."))] == 0o640
        assert list(modes.values()).count(0o640) >= 4
    finally:
        os.umask(before)


@pytest.mark.parametrize("sync", ["always", "os"])
def test_records_logged_during_a_checkpoint_are_in_one_segment_or_the_other(tmp_path: Path, sync: str) -> None:
    """Never acknowledged in the old one behind its end, nor in the new one before it is named."""
    with trax.Trax(tmp_path / "s", sync=sync) as store:  # type: ignore[arg-type]
        store.checkpoint(b=0)
        ended = threading.Event()
        logged: list[int] = []

        def log() -> None:
            while not ended.is_set():
                store.log(a=len(logged))
                logged.append(len(logged))

        thread = threading.Thread(target=log)
        thread.start()
        for number in range(30):
            store.checkpoint(b=number)
        ended.set()
        thread.join()
        assert [entry for _, entry in store.entries("a")] == logged
    with reopen_and_check(tmp_path / "s") as store:
        assert [entry for _, entry in store.entries("a")] == logged


def test_a_late_background_checkpoint_does_not_overwrite_a_newer_one(tmp_path: Path) -> None:
    """And a clean-up deletes nothing that a publish in flight is about to name."""
    with trax.Trax(tmp_path / "s") as store:
        store.checkpoint(a=[], b=0)
        storage = store._writer.storage  # type: ignore[union-attr]
        waiting, go_on = threading.Event(), threading.Event()
        write_value = storage.write_value

        def slow(name: str, encoded: Any) -> Any:
            value = write_value(name, encoded)
            if threading.current_thread() is not threading.main_thread():
                waiting.set()
                assert go_on.wait(20)
            return value

        storage.write_value = slow  # type: ignore[method-assign]
        store.log(a=1)
        late = store.checkpoint_async(a=[1], c="c" * 5000, d="older")
        assert waiting.wait(20)
        store.checkpoint(d="newer")
        store.log(a=2)
        store.checkpoint(a=[1, 2])
        store.checkpoint(b="b" * 5000)
        store.checkpoint(b="B" * 5000)
        go_on.set()
        late.result(20)
        assert store.recover("a", None, fold) == [1, 2]
        assert store.recover("c") == "c" * 5000
        assert store.recover("d") == "newer"
    with reopen_and_check(tmp_path / "s") as store:
        assert store.recover_many(["a", "b", "c"], None, fold) == {"a": [1, 2], "b": "B" * 5000, "c": "c" * 5000}
        assert len(list((tmp_path / "s" / "blobs").iterdir())) == 2


@pytest.mark.parametrize("real_locks", [True, False])
def test_a_writer_that_was_replaced_acknowledges_nothing_more(tmp_path: Path, real_locks: bool) -> None:
    """It checks that it is the owner after its sync: before, it may be paused between the check and the write."""
    lies = Stubborn() if real_locks else Stubborn(lock=lambda fd: OSError(errno.ENOLCK, "x"))
    lies.lock = (lambda fd: True) if real_locks else lies.lock  # type: ignore[method-assign]
    with warnings.catch_warnings(action="ignore"):
        old = trax.Trax(tmp_path / "s", fs=lies)
        old.checkpoint(a=[])
        old.log(a=1)
        if not real_locks:
            (tmp_path / "s" / "owner").unlink()
        new = trax.Trax(tmp_path / "s", fs=lies)
    with pytest.raises(errors.FencedError, match="another writer"):
        old.log(a="lost")
    with pytest.raises(errors.FencedError):
        old.checkpoint(a="lost")
    with pytest.raises(errors.FencedError):
        old.sync()
    new.log(a=2)
    assert new.recover("a", None, fold) == [1, 2]
    assert new.verify().ok


@pytest.mark.parametrize("between", ["log", "nothing"])
def test_a_publish_of_a_writer_that_was_replaced_changes_nothing(tmp_path: Path, between: str) -> None:
    lies = Stubborn()
    lies.lock = lambda fd: True  # type: ignore[method-assign]
    old = trax.Trax(tmp_path / "s", fs=lies, sync="os")
    old.checkpoint(a=1)
    new = trax.Trax(tmp_path / "s", fs=lies)
    if between == "log":
        new.log(a=2)
    before = read_tree(tmp_path / "s")
    with pytest.raises(errors.FencedError):
        old.checkpoint(a="lost")
    after = read_tree(tmp_path / "s")
    assert after == before
    assert new.recover("a") == (2 if between == "log" else 1)


def test_a_created_value_does_not_swallow_entries_and_a_state_computed_earlier_does_not_either(tmp_path: Path) -> None:
    with trax.Trax(tmp_path / "s") as store:
        store.log(a=1)
        assert store.recover("a", list, fold) == [1]
        state = store.recover("a", None, fold)
        seen = store.last_sequence
        store.log(a=2)  # by another thread, after the state was computed
        store.checkpoint_at(seen, {"a": state})
        assert store.recover("a", None, fold) == [1, 2]


def test_a_new_segments_name_is_durable_before_the_snapshot_names_it(tmp_path: Path) -> None:
    fs = RecordingFileSystem(tmp_path)
    with trax.Trax(tmp_path / "s", fs=fs) as store:
        store.log(a=1)
        store.checkpoint(a=1)
    kinds = ("create", "fsync_directory", "rename")
    order = [(one.kind, one.target or one.path) for one in fs.operations if one.kind in kinds]
    created = [n for n, (kind, path) in enumerate(order) if kind == "create" and path.startswith("s/log.")]
    assert len(created) == 2
    for place in created:
        following = order[place + 1 :]
        assert following.index(("fsync_directory", "s")) < following.index(("rename", "s/snapshot"))


def test_copied_survivors_keep_their_sequences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "LARGE_BYTES", 100)
    with trax.Trax(tmp_path / "s", keep=1) as store:
        logged = []
        for number in range(10):
            logged.append((store.log(rare=number), number))
            store.log(often="x" * 200)
            with store.batch() as batch:
                batch.log(often=1)
                batch.log(rare=number, often=2)
            logged.append((batch.sequence, number))
            store.checkpoint(often=number)
        assert list(store.entries("rare")) == logged
        assert int(store.stats()["segments"]) < 6  # type: ignore[call-overload]
        assert store.recover("rare", list, fold) == [number for _, number in logged]
    with reopen_and_check(tmp_path / "s") as store:
        assert list(store.entries("rare")) == logged
        store.checkpoint_at(logged[7][0], {"rare": [n for _, n in logged[:8]]})
        assert store.recover("rare", None, fold) == [number for _, number in logged]


def test_a_batch_whose_checkpoint_was_overtaken_is_refused_as_a_whole(tmp_path: Path) -> None:
    with trax.Trax(tmp_path / "s") as store:
        store.checkpoint(x=[], y=[])
        with pytest.raises(errors.ConflictError, match="Nothing of this call was stored"), store.batch() as batch:
            batch.log(x="in the batch")
            batch.checkpoint(x=["in the batch"])
            store.log(x="outside")
            store.checkpoint(x=["outside"])
            batch.log(y=1)
        assert store.recover_many(["x", "y"], None, fold) == {"x": ["outside"], "y": []}
        assert store.checkpoint(x=["again"]) > 0
    with reopen_and_check(tmp_path / "s") as store:
        assert store.recover("x") == ["again"]


def test_closing_waits_for_the_call_of_another_thread(tmp_path: Path) -> None:
    """Whose blob would otherwise be written, or removed, under the next writer's hands."""
    store = trax.Trax(tmp_path / "s")
    storage = store._writer.storage  # type: ignore[union-attr]
    write_value = storage.write_value
    waiting, go_on = threading.Event(), threading.Event()

    def slow(name: str, encoded: Any) -> Any:
        value = write_value(name, encoded)
        waiting.set()
        assert go_on.wait(20)
        return value

    storage.write_value = slow  # type: ignore[method-assign]
    saving = threading.Thread(target=store.checkpoint, args=({"x": "x" * 5000},))
    saving.start()
    assert waiting.wait(20)
    closing = threading.Thread(target=store.close)
    closing.start()
    closing.join(0.3)
    assert closing.is_alive()
    with pytest.raises(errors.ClosedError):
        store.checkpoint(y=1)
    go_on.set()
    saving.join(20)
    closing.join(20)
    with reopen_and_check(tmp_path / "s") as again:
        assert again.recover("x") == "x" * 5000
    for call in (lambda: storage.append(9, []), storage.sync, storage.mark, lambda: storage.publish({}, 9)):
        with pytest.raises(errors.ClosedError):
            call()


def test_an_interrupted_close_can_be_repeated(tmp_path: Path) -> None:
    armed = threading.Event()
    fs = Stubborn(pwrite=lambda *_: KeyboardInterrupt() if armed.is_set() else None)
    store = trax.Trax(tmp_path / "s", sync="os", buffer_bytes=1000, fs=fs)
    store.log(a="only in the process")
    armed.set()
    with pytest.raises(KeyboardInterrupt):
        store.close()
    armed.clear()
    store.close()
    with reopen_and_check(tmp_path / "s") as again:
        assert [entry for _, entry in again.entries("a")] == ["only in the process"]


def test_a_refused_sync_does_not_end_the_syncing(tmp_path: Path) -> None:
    full, refused = threading.Event(), threading.Event()

    def refuse(*_: object) -> OSError | None:
        if not full.is_set():
            return None
        if threading.current_thread().name == "trax-sync":
            refused.set()
        return OSError(errno.ENOSPC, "x")

    with trax.Trax(
        tmp_path / "s", sync="interval", sync_interval_s=0.01, buffer_bytes=1000, fs=Stubborn(pwrite=refuse)
    ) as store:
        full.set()
        store.log(a=1)
        assert refused.wait(20)
        full.clear()
        deadline = time.monotonic() + 20
        while store.durable_sequence < 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert store.durable_sequence == 1


def test_time_and_size_of_nothing(tmp_path: Path) -> None:
    """An idle store that is opened and closed again and again does not grow."""
    with trax.Trax(tmp_path / "s") as store:
        store.log(a=1)
    size = sum(file.stat().st_size for file in (tmp_path / "s").rglob("*") if file.is_file())
    began = time.monotonic()
    for _ in range(20):
        trax.Trax(tmp_path / "s").close()
    assert time.monotonic() - began < 20
    after = sum(file.stat().st_size for file in (tmp_path / "s").rglob("*") if file.is_file())
    assert abs(after - size) < 20
