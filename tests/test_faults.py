"""Every operation of the file system fails once, or from then on: a typed error, nothing lost, an openable store.

After SQLite's tests of I/O errors and of a full disk (sqlite.org/testing.html): the n-th operation fails, for every n.
What must be true then is written down in ``tests/faulty.py``. ``TRAX_FAULT_STRIDE`` is how many of the cases are left
out between two that are tried; 1: none.
"""

from __future__ import annotations

import errno
import os
import random
import threading
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

import trax
from tests.counting import count
from tests.crashing import fold, lay_out, recovered
from tests.faulty import SCENARIOS, FaultyJob, Sweep
from tests.helpers import GatedFileSystem, reopen_and_check
from tests.watching import assert_nothing_left, open_files, within
from trax.errors import FinishedError, StorageError
from trax.inspection import describe_store, verify_store
from trax.records import Follower, Wanted
from trax.storage.local import fs as local_fs
from trax.storage.local.fs import LocalFileSystem
from trax.storage.local.layout import Layout
from trax.testing.disks import crash_images
from trax.testing.faults import FAULTS, OPERATIONS, SHORT_WRITES, FaultyFileSystem, Short
from trax.testing.recording import RecordingFileSystem

SEED = os.environ.get("TRAX_SEED", "20261121")
STRIDE = int(os.environ.get("TRAX_FAULT_STRIDE", "200"))

INTERRUPTING = ("KeyboardInterrupt", "MemoryError")
# Fault, once or from then on, before the operation or when it has been done. A system that is out of space says so
# before; any other error may come from a server whose answer was lost.
VARIANTS = [
    (fault, once, after)
    for fault in FAULTS
    for once in (True, False)
    for after in (False, True)
    if not after or fault in ("EIO", *INTERRUPTING)
]


def some(total: int, *what: object, every: int = 1) -> range:
    """Every STRIDE-th number below ``total``, from one on that the seed chooses; ``every``: fewer by that factor."""
    stride = STRIDE * every
    return range(random.Random(f"{SEED}-{what}").randrange(stride), total, stride)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_any_operation_may_fail(scratch: Path, scenario: str) -> None:
    print(f"TRAX_SEED={SEED}")
    search = Sweep(scratch, SCENARIOS[scenario], SEED)
    tried = 0
    for fault, once, after in VARIANTS:
        interrupting = fault in INTERRUPTING
        kinds = (*OPERATIONS, "close") if interrupting else OPERATIONS

        def case(nth: int, fault=fault, once=once, after=after, kinds=kinds, interrupting=interrupting) -> None:  # type: ignore[no-untyped-def]
            def make(inner: RecordingFileSystem) -> FaultyFileSystem:
                return FaultyFileSystem(nth, FAULTS[fault], once=once, after=after, kinds=kinds, inner=inner)

            search.case(make, go_on=once, interrupting=interrupting)

        for nth in some(search.operations(kinds), scenario, fault, once, after):
            try:
                within(lambda nth=nth, case=case: case(nth))  # type: ignore[misc]
            except BaseException as error:
                error.add_note(f"TRAX_SEED={SEED}, {scenario!r}: {fault} at {nth}, once: {once}, after: {after}")
                raise
            tried += 1
    if tried:
        count("failing operations", tried)


@pytest.mark.parametrize("then", ["once", "always", "and then no space", "and then no space for anything"])
@pytest.mark.parametrize("short", SHORT_WRITES)
def test_a_write_may_be_short(scratch: Path, short: str, then: str) -> None:
    print(f"TRAX_SEED={SEED}")
    full = then.startswith("and then")
    once = then in ("once", "and then no space")
    kinds = ("pwrite",) if then != "and then no space for anything" else OPERATIONS
    tried = 0
    for scenario in ("creation", "log", "log as lines", "checkpoint", "batches", "compaction", "after a kill", "copy"):
        (place := scratch / scenario).mkdir()
        search = Sweep(place, SCENARIOS[scenario], SEED)

        def case(nth: int, takes: Short, search: Sweep = search) -> None:
            def make(inner: RecordingFileSystem) -> FaultyFileSystem:
                fault = FAULTS["ENOSPC"] if full else None
                return FaultyFileSystem(nth, fault, once=once, short=takes, kinds=kinds, inner=inner)

            search.case(make, go_on=once)

        for nth in some(search.operations(kinds), scenario, short, then):
            try:
                within(lambda nth=nth, case=case: case(nth, SHORT_WRITES[short]))  # type: ignore[misc]
            except BaseException as error:
                error.add_note(f"TRAX_SEED={SEED}, {scenario!r}: {short} {then} at {nth}")
                raise
            tried += 1
    if tried:
        count("failing operations", tried)


@pytest.fixture
def reading(scratch: Path) -> FaultyJob:
    """A store with all that can be read: blobs, kept snapshots, a log of several segments, a torn tail."""
    job = FaultyJob(scratch, SCENARIOS["recovery"], SEED)
    for step in ["open", "fill", "large", "log", "log", "checkpoint", "log", "batch", "log", "kill", "tear"]:
        job.step(step)
    return job


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("fault", ["EIO", "KeyboardInterrupt", "MemoryError"])
def test_a_reader_whose_file_system_fails_sees_the_truth_or_an_error(
    scratch: Path, reading: FaultyJob, fault: str, once: bool, after: bool
) -> None:
    """Above all, a read that fails is no end of the log."""
    counting = FaultyFileSystem()
    read(reading, counting)
    tried = 0
    for nth in some(counting.count, "reader", fault, once, after):
        fs = FaultyFileSystem(nth, FAULTS[fault], once=once, after=after)

        def case(fs: FaultyFileSystem = fs) -> None:
            try:
                read(reading, fs)
            except (trax.TraxError, KeyboardInterrupt, MemoryError) as error:
                assert fs.failed
                assert not isinstance(error, trax.errors.CorruptionError), "a failure is no damage"

        within(case)
        assert_nothing_left(scratch)
        tried += 1
    if tried:
        count("failing operations", tried)


def read(job: FaultyJob, fs: FaultyFileSystem) -> None:
    """Read all that there is, in every way, and compare it with what is true."""
    with trax.Trax(job.path, mode="r", fs=fs) as reader:
        assert recovered(reader) == job.state
        for name, expected in job.state.items():
            assert reader.recover(name, None, fold, mmap=True) == expected
            assert [entry for _, entry in reader.entries(name)] == expected[
                len(expected) - len([*reader.entries(name)]) :
            ]
        assert reader.names() == sorted(job.state)
        assert len(reader.snapshots()) == 2
    follower = Follower(fs, Layout(job.path), Wanted(None, {}), 0, lambda *_: None)
    try:
        assert sum(1 for _ in follower.poll()) == records_of(job.path)
    finally:
        follower.close()
    for problems, records in [
        ((found := verify_store(job.path, fs=fs)).problems, found.records),
        ((info := describe_store(job.path, fs=fs)).problems, info.records),
    ]:
        assert all(isinstance(one, StorageError) for one in problems)
        assert problems or records == records_of(job.path), "what could not be read has not been found right"


def records_of(path: Path) -> int:
    return verify_store(path).records


class Crowd:
    """Threads that log, each to a name of its own and all to one in common; what failed and can be repeated is."""

    def __init__(self, store: trax.Trax, threads: int, records: int) -> None:
        self._store = store
        self.issued: list[int] = [0] * threads
        self.acknowledged: list[list[int]] = [[] for _ in range(threads)]
        self.repeated = 0
        self._threads = [
            threading.Thread(target=self._work, args=(one, records), daemon=True) for one in range(threads)
        ]

    def run(self) -> None:
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a follower waits for ever"
        del self._store

    def _work(self, thread: int, records: int) -> None:
        for number in range(records):
            self.issued[thread] = number + 1
            try:
                try:
                    self._call(thread, number)
                except StorageError:
                    self.repeated += 1
                    self._call(thread, number)
            except (trax.TraxError, KeyboardInterrupt, MemoryError):
                return
            self.acknowledged[thread].append(number)

    def _call(self, thread: int, number: int) -> None:
        if number % 4 == 3 and thread == 0:
            self._store.checkpoint({"other": number})
        self._store.log({f"own{thread}": number, "all": (thread, number)})

    def check(self, path: Path) -> None:
        with reopen_and_check(path) as store:
            common = [tuple(entry) for _, entry in store.entries("all")]
            for thread, (issued, acknowledged) in enumerate(zip(self.issued, self.acknowledged, strict=True)):
                own = [entry for _, entry in store.entries(f"own{thread}")]
                assert own == sorted(set(own)), "in order, and each once"
                assert set(acknowledged) <= set(own) <= set(range(issued))
                assert [number for one, number in common if one == thread] == own, "a record is whole or not there"


@pytest.mark.parametrize("sync", ["always", "os"])
def test_any_operation_may_fail_while_threads_share_their_syncs(scratch: Path, sync: str) -> None:
    print(f"TRAX_SEED={SEED}")
    tried = 0
    for fault, once, after in VARIANTS:
        for nth in some(240, "crowd", sync, fault, once, after, every=6):
            (root := scratch / f"{tried}").mkdir()
            recording = RecordingFileSystem(root)
            fs = FaultyFileSystem(-1, FAULTS[fault], once=once, after=after, inner=recording)
            store = trax.Trax(root / "s", sync=sync, fs=fs)  # type: ignore[arg-type]
            crowd = Crowd(store, 4, 8)
            fs.fail_at(fs.count + nth)
            crowd.run()
            fs.heal()
            ended = list(recording.operations)
            if not store._writer.committer._failure:  # type: ignore[union-attr]
                with suppress(FinishedError) if fault in INTERRUPTING else nullcontext():
                    store.sync()  # nobody was told that the handle is finished
            store.close()
            del store
            assert_nothing_left(root)
            crowd.check(root / "s")
            if sync == "always":
                for _, image in crash_images(recording.start, ended, random.Random(SEED), 0, after=len(ended)):
                    lay_out(image, root)
                    crowd.check(root / "s")
            tried += 1
    if tried:
        count("failing operations", tried)


@pytest.mark.parametrize("kind", ["pwrite", "fdatasync"])
@pytest.mark.parametrize("fault", ["ENOSPC", "EIO", "KeyboardInterrupt", "MemoryError"])
def test_the_followers_of_a_leader_that_fails_are_told_or_served(tmp_path: Path, kind: str, fault: str) -> None:
    gated = GatedFileSystem()
    fs = FaultyFileSystem(-1, FAULTS[fault], kinds=(kind,), inner=gated)
    store = trax.Trax(tmp_path / "s", fs=fs)
    outcomes: dict[int, object] = {}

    def log(number: int) -> None:
        try:
            store.log(a=number)
            outcomes[number] = "acknowledged"
        except BaseException as error:
            outcomes[number] = type(error)

    threads = [threading.Thread(target=log, args=(number,), daemon=True) for number in range(5)]
    gated.close_gate()
    threads[0].start()
    assert gated.waiting.wait(60)
    for thread in threads[1:]:
        thread.start()
    assert store._writer is not None
    queue = store._writer.committer
    while len(queue._queue) < 4:  # they are in one group, behind the one that is being synced
        threads[1].join(0.001)
    fs.fail_at(fs.count)
    gated.gate.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a follower waits for ever"
    told = [outcomes[number] for number in range(1, 5)]
    assert outcomes[0] == "acknowledged"
    if fault in INTERRUPTING:
        assert told.count("acknowledged") == 3, "the next of them leads the group"
    elif kind == "fdatasync":
        assert set(told) == {FinishedError}
    else:
        assert set(told) <= {StorageError, trax.errors.DiskFullError}
        store.log(a="after")
    store.close()
    with reopen_and_check(tmp_path / "s") as again:
        found = {entry for _, entry in again.entries("a")}
    assert {number for number, one in outcomes.items() if one == "acknowledged"} <= found
    if kind == "pwrite" and fault not in INTERRUPTING:
        assert found == {0, "after"}, "a call that raised StorageError is not in the store"


# What the sweeps have found, each by itself


def test_a_lock_that_can_not_be_unlocked_is_let_go_of_all_the_same(tmp_path: Path) -> None:
    fs = FaultyFileSystem(0, FAULTS["EIO"], kinds=("unlock",))
    store = trax.Trax(tmp_path / "s", fs=fs)
    store.log(a=1)
    with pytest.raises(StorageError, match="could not unlock"):
        store.close()
    assert_nothing_left(tmp_path)
    reopen_and_check(tmp_path / "s").close()


def test_an_error_of_close_says_nothing_about_what_was_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system lets go of the file in any case; on a network, it may report then what an fsync would have."""
    close, failed = local_fs.Descriptor.close, []

    def fails(self: local_fs.Descriptor) -> None:
        close(self)
        failed.append(int(self))
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(local_fs.Descriptor, "close", fails)
    with trax.Trax(tmp_path / "s") as store:
        store.checkpoint(a="x" * 5000)
        store.log(a=1)
        assert store.recover("a") == 1
    assert len(failed) > 5
    reopen_and_check(tmp_path / "s").close()


def test_whole_records_of_a_failed_write_that_stay_in_the_file_end_the_handle(tmp_path: Path) -> None:
    """The next opening will find them: whoever logged them must not be told that they are not in the store."""
    inner = NeverTruncates()
    fs = FaultyFileSystem(-1, FAULTS["EIO"], after=True, once=False, kinds=("pwrite",), inner=inner)
    store = trax.Trax(tmp_path / "s", fs=fs)
    store.log(a=1)
    inner.on = True
    fs.fail_at(fs.count)
    with pytest.raises(FinishedError, match="nor take back"):
        store.log(a=2)
    with pytest.raises(FinishedError):
        store.sync()
    fs.heal()
    with pytest.raises(StorageError, match="could not close"):
        store.close()
    with reopen_and_check(tmp_path / "s") as again:
        assert [entry for _, entry in again.entries("a")] == [1, 2]


class NeverTruncates(LocalFileSystem):
    on = False

    def truncate(self, fd: int, nbytes: int) -> None:
        if self.on:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().truncate(fd, nbytes)


def test_a_directory_in_the_place_of_a_file_is_an_error_and_leaves_nothing_open(tmp_path: Path) -> None:
    with trax.Trax(tmp_path / "s") as store:
        store.checkpoint(a=1)
        log = max((tmp_path / "s").glob("log.*"))
    log.unlink()
    log.mkdir()
    for mode in ("a", "r"):
        with pytest.raises(StorageError, match="directory"), trax.Trax(tmp_path / "s", mode=mode) as store:  # type: ignore[arg-type]
            store.recover("a")
        assert open_files(tmp_path) == []


def test_a_copy_that_failed_can_be_repeated(scratch: Path) -> None:
    counting = FaultyFileSystem()
    with trax.Trax(scratch / "s", fs=counting, keep=2) as store:
        store.checkpoint(a="x" * 5000, b=1)
        store.checkpoint(a="y" * 5000)
        store.log(b=2)
        before = counting.count
        store.sync()  # which copying begins with, and whose failure ends the handle
        synced = counting.count
        store.copy_to(scratch / "counted")
        for nth in range(synced - before, counting.count - synced):
            counting._fault, counting._once = FAULTS["EIO"], True
            counting.fail_at(counting.count + nth)
            with pytest.raises(StorageError):
                store.copy_to(scratch / f"copy{nth}")
            store.copy_to(scratch / f"copy{nth}")
            store.log(b=2)
            with trax.Trax(scratch / f"copy{nth}", mode="r") as copy:
                assert copy.recover_many(["a", "b"]) == {"a": "y" * 5000, "b": 2}
                assert copy.verify().problems == []


def test_a_failure_of_memory_in_the_background_is_told(tmp_path: Path) -> None:
    """Also to whoever has not kept the future."""
    fs = FaultyFileSystem(-1, MemoryError, kinds=("create",))
    with trax.Trax(tmp_path / "s", fs=fs) as store:
        store.checkpoint(a=1)
        fs.fail_at(fs.count)
        future = store.checkpoint_async(a="x" * 5000)
        assert isinstance(future.exception(60), MemoryError)
        with pytest.raises(MemoryError) as caught:
            store.log(a=2)
        assert "checkpoint_async" in caught.value.__notes__[0]
        store.log(a=2)
    with reopen_and_check(tmp_path / "s") as again:
        assert again.recover("a") == 2


def test_a_failure_of_memory_does_not_end_the_syncing(tmp_path: Path) -> None:
    failed = threading.Event()

    class Exhausted(LocalFileSystem):
        def fdatasync(self, fd: int) -> None:
            if threading.current_thread().name == "trax-sync" and not failed.is_set():
                failed.set()
                raise MemoryError
            super().fdatasync(fd)
            if failed.is_set():
                synced.set()

    synced = threading.Event()
    with trax.Trax(tmp_path / "s", sync="interval", sync_interval_s=0.01, fs=Exhausted()) as store:
        store.log(a=1)
        assert failed.wait(60)
        assert synced.wait(60), "the thread that syncs has died"
    reopen_and_check(tmp_path / "s").close()


def test_what_a_failed_call_recorded_can_be_played(tmp_path: Path) -> None:
    fs = RecordingFileSystem(tmp_path)
    with trax.Trax(tmp_path / "s", fs=fs) as store:
        store.log(a=1)
    kinds = {operation.kind for operation in fs.operations}
    assert {"create", "write", "fsync", "rename", "mkdir", "fsync_directory"} <= kinds
