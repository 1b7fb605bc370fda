"""Single safeguards that only a case made for them can tell from their absence."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trax
from tests.helpers import kill, reopen_and_check
from tests.watching import within
from trax import commit
from trax.commit import Pending
from trax.errors import CorruptionError, FinishedError, HandleError, TornTailWarning
from trax.storage.local import compaction
from trax.storage.local.fs import LocalFileSystem
from trax.storage.local.layout import Layout
from trax.testing.disks import moments
from trax.testing.faults import FaultyFileSystem
from trax.testing.recording import RecordingFileSystem
from trax.unlock import OwnerFile


class OneSyncFails(LocalFileSystem):
    """The ``nth`` fdatasync from now on fails; of which file that was."""

    nth = -1
    failed: str | None = None

    def fdatasync(self, fd: int) -> None:
        self.nth -= 1
        if self.nth == -1:
            status = self.identity_of(fd)
            self.failed = next(str(one) for one in self.root.glob("log.*") if self.identity(str(one)) == status)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().fdatasync(fd)

    def __init__(self, root: Path) -> None:
        self.root = root


def test_a_segment_whose_sync_has_failed_is_never_synced_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second fsync may succeed without the pages that the first one has lost: the handle is finished, or the file."""
    monkeypatch.setattr(compaction, "LARGE_BYTES", 200)
    monkeypatch.setattr(compaction, "MANY_SEGMENTS", 2)
    finished = removed = 0
    while True:
        path = tmp_path / f"s{finished + removed}"
        fs = OneSyncFails(path)
        store = trax.Trax(path, fs=fs, keep=2)
        fs.nth = finished + removed
        error = work(store)
        fs.nth = -1
        if fs.failed is None:
            store.close()
            break
        if os.path.exists(fs.failed):
            assert error is not None, "it was not told"
            with pytest.raises(HandleError):
                store.log(a="behind what may be lost")
            finished += 1
        else:
            removed += 1
        kill(store)
        reopen_and_check(path).close()
    assert finished > 5 and removed > 3, "both kinds of files have come up"


def work(store: trax.Trax) -> Exception | None:
    try:
        store.checkpoint(a=[], b=[])
        for number in range(4):
            store.log(a=number)
            with store.batch() as batch:
                batch.log(a=number)
                batch.checkpoint(b=[number])
                batch.log(a=number)
            store.checkpoint(b=number)
        store.sync()
    except trax.TraxError as error:
        return error
    return None


class InterruptedAfterTheRename(LocalFileSystem):
    """Ctrl-C comes while the directory is synced, once the snapshot was renamed."""

    armed = False

    def rename(self, source: str, target: str) -> None:
        super().rename(source, target)
        self.renamed = self.armed

    def fsync_directory(self, path: str) -> None:
        if self.armed and self.renamed:
            self.armed = False
            raise KeyboardInterrupt
        super().fsync_directory(path)


def test_after_an_interrupt_inside_a_commit_the_handle_does_nothing_more(tmp_path: Path) -> None:
    """The old segment may have been sealed: a record that went there would never be read."""
    fs = InterruptedAfterTheRename()
    store = trax.Trax(tmp_path / "s", fs=fs)
    store.checkpoint(a=[1])
    store.log(a=2)
    fs.armed, fs.renamed = True, False
    with pytest.raises(KeyboardInterrupt):
        store.checkpoint(a=[1, 2])
    before = {path: path.read_bytes() for path in (tmp_path / "s").glob("log.*")}
    for call in (lambda: store.log(a=3), lambda: store.checkpoint(a=[3]), lambda: store.delete("a"), store.sync):
        with pytest.raises(FinishedError, match="Open the store again"):
            call()
    assert {path: path.read_bytes() for path in (tmp_path / "s").glob("log.*")} == before
    store.close()
    with reopen_and_check(tmp_path / "s") as again:
        assert again.recover("a", None, lambda state, entry: [*state, entry]) == [1, 2]


def test_a_record_that_waits_while_a_checkpoint_begins_is_synced_before_it_is_acknowledged(tmp_path: Path) -> None:
    """Its own thread returns as soon as it is told; it does not wait for the rest of the checkpoint."""
    fs = RecordingFileSystem(tmp_path)
    store = trax.Trax(tmp_path / "s", fs=fs)
    store.checkpoint(a=0, b=0)
    assert store._writer is not None
    committer, storage = store._writer.committer, store._writer.storage
    record, _ = store._encoder.record(None, {"b": 1})
    publish = storage.publish
    seen = []

    def look(*arguments: Any, **keywords: Any) -> None:
        last = [one.kind for one in fs.operations if one.kind == "write" or one.kind == "fsync"][-1]
        seen.append((waiting.done, waiting.error, last))
        publish(*arguments, **keywords)

    storage.publish = look  # type: ignore[method-assign]
    sync_through = committer.sync_through

    def queue_now(sequence: int) -> None:
        nonlocal waiting
        sync_through(sequence)
        with committer._mutex:  # another thread, which has not got its turn yet
            waiting = Pending(committer._give_out(1), (record,), 100, None)
            committer._queue.append(waiting)

    waiting: Any = None
    committer.sync_through = queue_now  # type: ignore[method-assign]
    store.checkpoint(a=1)
    assert seen == [(True, None, "fsync")]
    store.close()


@pytest.mark.parametrize("company", [1, 2])
def test_a_record_is_synced_when_its_call_returns_whether_or_not_there_are_others(tmp_path: Path, company: int) -> None:
    class Counting(LocalFileSystem):
        syncs = 0

        def fdatasync(self, fd: int) -> None:
            super().fdatasync(fd)
            self.syncs += 1

    with trax.Trax(tmp_path / "s", fs=(fs := Counting())) as store:
        store.checkpoint(a=1)
        for _ in range(3):
            store._writer.committer._company = company  # type: ignore[union-attr]
            before = fs.syncs
            assert store.log(a=2) == store.durable_sequence
            assert fs.syncs == before + 1


@pytest.mark.parametrize("company", [1, 2])
@pytest.mark.parametrize("operation", ["pwrite", "fdatasync"])
def test_after_an_interrupt_the_next_call_does_not_wait_for_the_thread_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str, company: int
) -> None:
    monkeypatch.setattr(commit, "_PATIENCE_S", 3600.0)
    fs = FaultyFileSystem(fault=KeyboardInterrupt, kinds=(operation,))
    store = trax.Trax(tmp_path / "s", fs=fs)
    store.checkpoint(a=[])
    fs._nth = fs.count
    store._writer.committer._company = company  # type: ignore[union-attr]
    with pytest.raises(KeyboardInterrupt):
        store.log(a="interrupted")
    within(lambda: (store.log(a="next"), store.close())[1])
    # What was queued, or appended, is brought by the next call.
    kept = ["interrupted"] if company > 1 or operation == "fdatasync" else []
    assert reopen_and_check(tmp_path / "s").recover("a", replay_log=fold) == [*kept, "next"]


def test_a_place_in_the_queue_that_was_left_costs_one_call_its_patience_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that would have led next was interrupted in its sleep."""

    class Interrupting:
        def acquire(self, timeout: float) -> bool:
            raise KeyboardInterrupt

        def release(self) -> None: ...

    class Sync(LocalFileSystem):
        def fdatasync(self, fd: int) -> None:
            super().fdatasync(fd)
            if meanwhile:
                meanwhile.pop()()

    def come_and_go() -> None:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(commit, "_locked", Interrupting)
            within(lambda: store.log(a="interrupted") and None)

    meanwhile: list[Any] = []
    store = trax.Trax(tmp_path / "s", fs=Sync())
    store.checkpoint(a=[])
    meanwhile.append(come_and_go)
    store._writer.committer._company = 2  # type: ignore[union-attr]  # a thread without company does not queue
    store.log(a="first")
    monkeypatch.setattr(commit, "_PATIENCE_S", 0.01)
    store.log(a="patient")
    monkeypatch.setattr(commit, "_PATIENCE_S", 3600.0)
    within(lambda: (store.log(a="next"), store.close())[1])
    found = reopen_and_check(tmp_path / "s").recover("a", replay_log=fold)
    assert found == ["first", "interrupted", "patient", "next"]


def fold(state: list[str], entry: str) -> list[str]:
    return [*state, entry]


def test_a_record_does_not_follow_another_one_than_that_it_was_written_behind(tmp_path: Path) -> None:
    """The disk has kept an older write of the same place and length, and a newer one of the place behind it."""
    store = trax.Trax(tmp_path / "s", sync="os")
    store.checkpoint(a=[])
    log = max((tmp_path / "s").glob("log.*"))
    assert store._writer is not None
    writer = store._writer.storage._writer
    tail = writer.tail
    store.log(a="one")
    failed = log.read_bytes()[tail.offset :]
    writer.tail = tail  # the call has failed, and the next one writes in its place
    store.log(a="ONE")
    store.log(a="TWO")
    kill(store)
    data = log.read_bytes()
    log.write_bytes(data[: tail.offset] + failed + data[tail.offset + len(failed) :])
    with warnings.catch_warnings(record=True) as caught, trax.Trax(tmp_path / "s") as again:
        assert again.recover("a", None, fold) == ["one"]
        assert again.verify().ok
    assert [one.category for one in caught] == [TornTailWarning]


@pytest.mark.parametrize(("method", "call"), [("fsync", "fsync"), ("fdatasync", "fdatasync")])
def test_a_sync_reaches_the_operating_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, call: str
) -> None:
    asked = []
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda fd, name=name: asked.append((name, os.fstat(fd).st_ino)))
    fs = LocalFileSystem()
    fd = fs.create(str(tmp_path / "f"))
    getattr(fs, method)(fd)
    fs.fsync_directory(str(tmp_path))
    fs.close(fd)
    inodes = [(tmp_path / "f").stat().st_ino, tmp_path.stat().st_ino]
    if sys.platform == "linux":  # macOS has another call, which is not Python's
        assert asked == [(call, inodes[0]), ("fsync", inodes[1])]


def after_a_power_loss(fs: RecordingFileSystem, root: Path, *, names: bool = False) -> Path:
    """The disk when nothing has arrived that was not synced; with ``names``, all names have, and no contents."""
    *_, (_, outcomes) = moments(fs.start, fs.operations)
    root.mkdir()
    outcomes.choose(lambda kind, count: 0 if names and kind == "name" else min(1, count - 1)).lay_out(root)
    return root


def test_what_sync_has_proven_is_proven_after_a_power_loss_too(tmp_path: Path) -> None:
    """Damage of the last record is no tear: the mark behind it says that it was on the disk."""
    (tmp_path / "run").mkdir()
    fs = RecordingFileSystem(tmp_path / "run")
    store = trax.Trax(tmp_path / "run" / "s", fs=fs)
    store.log(a="the last one")
    store.sync()
    kill(store)
    path = after_a_power_loss(fs, tmp_path / "crash") / "s"
    log = path / "log.00000001"
    log.write_bytes(log.read_bytes().replace(b"the last one", b"the lost one"))
    with pytest.raises(CorruptionError):
        trax.Trax(path)


def test_a_store_that_was_closed_needs_no_recovery_after_a_power_loss(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    fs = RecordingFileSystem(tmp_path / "run")
    with trax.Trax(tmp_path / "run" / "s", fs=fs) as store:
        store.log(a=1)
    path = after_a_power_loss(fs, tmp_path / "crash") / "s"
    with trax.Trax(path) as store:
        assert store.stats()["rewritten_records"] == 0
        assert [one.name for one in path.glob("log.*")] == ["log.00000001"], "it goes on in the same segment"
        assert [entry for _, entry in store.entries("a")] == [1]


def test_a_store_that_was_just_created_needs_no_recovery_after_a_power_loss(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    fs = RecordingFileSystem(tmp_path / "run")
    kill(trax.Trax(tmp_path / "run" / "s", fs=fs))
    path = after_a_power_loss(fs, tmp_path / "crash") / "s"
    with warnings.catch_warnings(action="error"), trax.Trax(path):
        assert [one.name for one in path.glob("log.*")] == ["log.00000001"]


class WithoutLocks(RecordingFileSystem):
    links = True

    def link(self, source: str, target: str) -> None:
        if not self.links:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        super().link(source, target)

    def lock(self, fd: int) -> bool:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    def is_locked(self, fd: int) -> bool:
        return self.lock(fd)


@pytest.mark.parametrize("links", [True, False])
def test_an_owner_file_still_says_who_after_a_power_loss(tmp_path: Path, links: bool) -> None:
    (tmp_path / "run").mkdir()
    fs = WithoutLocks(tmp_path / "run")
    fs.links = links
    with warnings.catch_warnings(action="ignore"):
        kill(trax.Trax(tmp_path / "run" / "s", fs=fs))
    before = (tmp_path / "run" / "s" / "owner").read_bytes()
    path = after_a_power_loss(fs, tmp_path / "crash", names=True) / "s"
    assert (path / "owner").read_bytes() == before


def test_an_owner_file_that_was_unlocked_is_not_back_after_a_power_loss(tmp_path: Path) -> None:
    (tmp_path / "run" / "s").mkdir(parents=True)
    with warnings.catch_warnings(action="ignore"):
        kill(trax.Trax(tmp_path / "run" / "s", fs=WithoutLocks(tmp_path / "run")))
    owner = tmp_path / "run" / "s" / "owner"
    owner.write_text(json.dumps({**json.loads(owner.read_bytes()), "host": "elsewhere"}))
    fs = WithoutLocks(tmp_path / "run")
    file = OwnerFile(fs, Layout(tmp_path / "run" / "s"))
    assert file.may_be_removed
    file.remove()
    assert not (after_a_power_loss(fs, tmp_path / "crash") / "s" / "owner").exists()


class SlowWrites(LocalFileSystem):
    """Whoever fills the next chunk has all the time for it while this one is written."""

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        time.sleep(0.02)
        return super().pwrite(fd, data, offset)


@pytest.mark.parametrize("copied", [False, True], ids=["checkpoint", "checkpoint_async"])
def test_a_chunk_stays_as_it_is_until_it_is_written(tmp_path: Path, copied: bool) -> None:
    array = np.arange(1 << 20)
    with trax.Trax(tmp_path / "store", fs=SlowWrites()) as store:
        if copied:
            saved = store.checkpoint_async(state=array)
            array[:] = 0
            saved.result()
        else:
            store.checkpoint(state=array)
        assert np.array_equal(store.recover("state"), np.arange(1 << 20))


def test_an_interpreter_that_ends_during_a_save_costs_the_save_and_no_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the second chunk on there are no new tasks: the first one is on its way in the thread."""
    submit, calls = ThreadPoolExecutor.submit, iter(range(100))

    def ending(pool: ThreadPoolExecutor, *what: Any) -> Any:
        if next(calls):
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        return submit(pool, *what)

    with trax.Trax(tmp_path / "store") as store:
        store.checkpoint(state="before")
        with monkeypatch.context() as patch:
            patch.setattr(ThreadPoolExecutor, "submit", ending)
            with pytest.raises(RuntimeError, match="interpreter shutdown"):
                store.checkpoint(state=np.arange(1 << 20))
        assert store.recover("state") == "before"
