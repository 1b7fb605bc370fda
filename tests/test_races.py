"""Threads, and processes that are forked, whose calls meet in the middle.

Each race is run again and again, the one side at a random moment of the other; ``TRAX_FAULT_STRIDE`` sets how often, as
in ``tests/test_faults.py``. Whatever wins: each call ends, with its result or with an error of trax's tree; what was
acknowledged is there; the lock is free when the handle is closed.
"""

from __future__ import annotations

import gc
import os
import random
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import trax
from tests.counting import count
from tests.crashing import fold
from tests.helpers import GatedFileSystem, reopen_and_check
from tests.watching import assert_nothing_left, within
from trax.errors import ClosedError, ForkedError
from trax.storage.local.fs import LocalFileSystem

SEED = os.environ.get("TRAX_SEED", "20261121")
ROUNDS = max(2, 100 // int(os.environ.get("TRAX_FAULT_STRIDE", "200")))


class SlowFileSystem(LocalFileSystem):
    """Lets other threads come in between at random: what is a matter of luck on a fast disk happens at once."""

    def __init__(self, seed: str) -> None:
        self._dice = random.Random(seed)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        self._dawdle()
        return super().pwrite(fd, data, offset)

    def fdatasync(self, fd: int) -> None:
        self._dawdle()
        super().fdatasync(fd)

    def rename(self, source: str, target: str) -> None:
        self._dawdle()
        super().rename(source, target)

    def fsync_directory(self, path: str) -> None:
        super().fsync_directory(path)
        self._dawdle()

    def _dawdle(self) -> None:
        time.sleep(self._dice.choice((0, 0, 0.0002)))


def race(seed: str, scratch: Path, run: Callable[[Path, random.Random], None]) -> None:
    """Run it in a place of its own, many times."""
    print(f"TRAX_SEED={SEED}")
    for number in range(ROUNDS):
        path = scratch / f"{number}"
        dice = random.Random(f"{SEED}-{seed}-{number}")
        try:
            within(lambda path=path, dice=dice: run(path, dice))  # type: ignore[misc]
            assert_nothing_left(scratch)
        except BaseException as error:
            error.add_note(f"TRAX_SEED={SEED}, round {number}")
            raise
    count("thread races", ROUNDS)


class Worker:
    """Makes a call again and again in a thread, until it is told to stop, or until the handle is closed."""

    def __init__(self, call: Callable[[int], Any]) -> None:
        self.results: list[Any] = []
        self.issued = 0
        self.error: BaseException | None = None
        self._call = call
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            while not self._stopped.is_set():
                self.issued += 1
                self.results.append(self._call(self.issued - 1))
        except BaseException as error:
            self.error = error.with_traceback(None)

    def wait_for(self, results: int) -> None:
        """Until it has so many results, or has failed."""
        while len(self.results) < results and self._thread.is_alive():
            self._thread.join(0.0001)

    def end(self, *, stop: bool = False) -> None:
        if stop:
            self._stopped.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "it hangs"
        del self._call


@pytest.mark.parametrize("sync", ["always", "interval", "os"])
def test_close_comes_in_the_middle_of_everything(scratch: Path, sync: str) -> None:
    def run(path: Path, dice: random.Random) -> None:
        options: dict[str, Any] = {"sync": sync, "sync_interval_s": 0.001}
        if sync != "always":
            options["buffer_bytes"] = dice.choice((0, 100))
        store = trax.Trax(path, fs=SlowFileSystem(f"{dice.random()}"), **options)
        store.checkpoint(log=[], batch=[], big="", recovered=[0])

        def batch(number: int) -> None:
            with store.batch() as b:
                b.log(batch=2 * number)
                b.log(batch=2 * number + 1)

        def background(number: int) -> Future[int]:
            future = store.checkpoint_async(late=number)
            if number % 3 == 2:  # not too many at a time: close() waits for all of them
                future.exception(60)
            return future

        calls: dict[str, Callable[[int], Any]] = {
            "log": lambda number: store.log(log=number),
            "batch": batch,
            "checkpoint": lambda number: store.checkpoint(saved=number),
            "big": lambda number: store.checkpoint(big=f"{number:05}" * 1000),
            "async": background,
            "recover": lambda number: store.recover("recovered", None, fold),
            "entries": lambda number: [*store.entries("log")],
            "sync": lambda number: store.sync(),
            "read": lambda number: (store.names(), store.stats(), store.snapshots(), store.durable_sequence),
            # Not without a pause: a lock that is taken again at once is never another's.
            "verify": lambda number: (store.verify(), time.sleep(0.002)),
        }
        names = dice.sample(sorted(calls), 4)
        workers = {name: Worker(calls[name]) for name in names}
        workers[dice.choice(names)].wait_for(dice.randrange(6))
        store.close()
        for name, worker in workers.items():
            worker.end()
            assert isinstance(worker.error, ClosedError), f"{name}: {worker.error!r}"
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("trax-checkpoint")]
        for future in workers["async"].results if "async" in workers else ():
            assert future.done()
            assert isinstance(future.exception(), ClosedError | None)
        with reopen_and_check(path) as again:
            check_what_was_acknowledged(again, workers)

    race(f"close-{sync}", scratch, run)


def check_what_was_acknowledged(store: trax.Trax, workers: dict[str, Worker]) -> None:
    if log := workers.get("log"):
        found = [entry for _, entry in store.entries("log")]
        assert found == [*range(len(found))] and len(log.results) <= len(found) <= log.issued
    if batch := workers.get("batch"):
        found = [entry for _, entry in store.entries("batch")]
        assert found == [*range(len(found))] and len(found) % 2 == 0
        assert len(batch.results) <= len(found) // 2 <= batch.issued
    for name, key, shape in [("checkpoint", "saved", lambda n: n), ("big", "big", lambda n: f"{n:05}" * 1000)]:
        if (worker := workers.get(name)) and worker.results:
            last = len(worker.results) - 1
            assert store.recover(key) in (shape(last), shape(last + 1))
    if (late := workers.get("async")) and (done := [n for n, one in enumerate(late.results) if not one.exception()]):
        assert store.recover("late") == done[-1]


def test_threads_that_checkpoint_the_same_names_leave_the_value_of_a_last_call(scratch: Path) -> None:
    def run(path: Path, dice: random.Random) -> None:
        store = trax.Trax(path, fs=SlowFileSystem(f"{dice.random()}"), keep=dice.choice((1, 3)))
        store.checkpoint(a=(9, -1), b=(9, -1))

        def call(thread: int) -> Callable[[int], Any]:
            def save(number: int) -> int:
                value = (thread, number, "x" * dice.choice((1, 5000)))
                if number % 3 == 2:
                    return store.checkpoint_async(a=value, b=value).result(60)
                return store.checkpoint(a=value, b=value)

            return save

        workers = [Worker(call(thread)) for thread in range(3)]
        for worker in workers:
            worker.wait_for(4)
        for worker in workers:
            worker.end(stop=True)
            assert worker.error is None
            assert worker.results == sorted(worker.results), "later calls of one thread come later"
        every = [sequence for worker in workers for sequence in worker.results]
        assert len(set(every)) == len(every)
        last = [(thread, len(worker.results) - 1) for thread, worker in enumerate(workers)]
        store.close()
        with reopen_and_check(path) as again:
            a, b = again.recover("a"), again.recover("b")
            assert a == b, "both names were always saved together"
            assert a[:2] in last
            assert len([*(path / "blobs").iterdir()]) <= 2 * len(again.snapshots()), "no value is left behind"

    race("same names", scratch, run)


@pytest.mark.parametrize("keep_the_future", [True, False])
def test_a_handle_that_is_dropped_while_a_checkpoint_runs_is_closed_behind_it(
    scratch: Path, keep_the_future: bool
) -> None:
    def run(path: Path, dice: random.Random) -> None:
        fs = GatedFileSystem()
        store = trax.Trax(path, fs=fs, sync=dice.choice(("always", "os")))  # type: ignore[arg-type]
        store.checkpoint(a=[])
        store.log(a=1)
        if dice.random() < 0.5:
            fs.close_gate()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            future = store.checkpoint_async(a=[1], b="b" * 5000)
            kept = [future] if keep_the_future else []
            del future
            del store
            fs.gate.set()
            if kept:
                kept[0].result(60)
            deadline = time.monotonic() + 60
            while True:  # until whoever held the handle last has let go of it
                try:
                    gc.collect()
                    again = trax.Trax(path)
                    break
                except trax.errors.StoreLockedError:
                    assert time.monotonic() < deadline, "the handle is never closed"
        with again:
            assert again.recover("a", None, fold) == [1]
            if keep_the_future:
                assert again.recover("b") == "b" * 5000
            assert again.verify().problems == []

    race(f"drop-{keep_the_future}", scratch, run)


def test_a_fork_in_the_middle_of_everything_leaves_the_child_a_dead_handle_and_the_parent_all_of_its_own(
    scratch: Path,
) -> None:
    def run(path: Path, dice: random.Random) -> None:
        store = trax.Trax(path, fs=SlowFileSystem(f"{dice.random()}"), sync=dice.choice(("always", "interval", "os")))  # type: ignore[arg-type]
        store.checkpoint(log=[], saved=0)
        workers = {
            "log": Worker(lambda number: store.log(log=number)),
            "checkpoint": Worker(lambda number: store.checkpoint(saved=number)),
            "big": Worker(lambda number: store.checkpoint_async(big=f"{number:05}" * 1000).result(60)),
        }
        workers["log"].wait_for(dice.randrange(1, 5))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that a process with threads should not fork
            child = os.fork()
        if child == 0:
            os._exit(in_the_child(store))
        workers["log"].wait_for(len(workers["log"].results) + 3)
        assert wait_for(child) == 0, "the child has hung, or could do what only its parent may"
        for worker in workers.values():
            worker.end(stop=True)
            assert worker.error is None
        store.close()
        with reopen_and_check(path) as again:
            check_what_was_acknowledged(again, workers)

    race("fork", scratch, run)


def in_the_child(store: trax.Trax) -> int:
    """0 if each call on the handle of the parent is refused, and closing it does nothing."""
    calls: list[Callable[[], Any]] = [
        lambda: store.log(log=-1),
        lambda: store.checkpoint(saved=-1),
        lambda: store.checkpoint_async(saved=-1),
        lambda: store.recover("saved"),
        lambda: store.entries("log"),
        store.sync,
        store.names,
        store.batch,
        lambda: store.delete("saved"),
        store.verify,
    ]
    for number, call in enumerate(calls, 1):
        try:
            call()
        except ForkedError:
            continue
        except BaseException:  # the status of the child says which call it was
            return number
        return number
    store.close()
    return 0


def wait_for(child: int) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return -1


@pytest.mark.parametrize("call", ["create", "replay_log", "batch", "entries"])
def test_a_fork_inside_a_call_does_not_let_the_child_go_on_with_it(tmp_path: Path, call: str) -> None:
    """The callback returns twice: in the parent, and in a child whose other threads, and their locks, are gone."""
    store = trax.Trax(tmp_path / "s", sync="os")
    store.checkpoint(a=[])
    store.log(a=1)
    child: list[int] = []

    def fork(*arguments: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child.append(os.fork())
        return fold(*arguments) if arguments else []

    def batch() -> None:
        with store.batch() as b:
            b.log(a=2)
            fork()

    calls: dict[str, Callable[[], Any]] = {
        "create": lambda: store.recover("b", fork),
        "replay_log": lambda: store.recover("a", None, fork),
        "batch": batch,
        "entries": lambda: [fork() for _ in store.entries("a")],
    }
    ended = threading.Event()
    thread = threading.Thread(target=lambda: [store.log(c=1) for _ in iter(ended.is_set, True)], daemon=True)
    thread.start()
    try:
        calls[call]()
        code = 0
    except trax.errors.HandleError:
        code = 7
    except BaseException:
        code = 1
    if child == [0]:
        os._exit(code)
    ended.set()
    thread.join(60)
    assert code == 0 and len(child) == 1
    assert wait_for(child[0]) == (7 if call in ("create", "batch") else 0)
    store.close()
    with reopen_and_check(tmp_path / "s") as again:
        assert again.recover("a", None, fold) == ([1, 2] if call == "batch" else [1])
        assert ("b" in again) == (call == "create")


@pytest.mark.parametrize(
    "options", [{}, {"sync": "os"}, {"sync": "os", "buffer_bytes": 300}], ids=["always", "os", "buffer"]
)
def test_no_other_thread_sees_a_sequence_that_no_call_has(tmp_path: Path, options: Any) -> None:
    """A checkpoint that begins at any step of a log() contains no sequence that a later one will have."""
    seen: set[int] = set()

    def look(frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.endswith("trax/commit.py"):
            return None
        frame.f_trace_opcodes = True
        seen.add(committer.last_sequence)
        return look

    with trax.Trax(tmp_path / "s", **options) as store:
        committer = store._writer.committer  # type: ignore[union-attr]
        store.checkpoint(a=[])
        for number in range(2, 20):  # runs begin and end on the way
            seen.clear()
            sys.settrace(look)
            try:
                assert store.log(a=number) == number
            finally:
                sys.settrace(None)
            assert seen == {number - 1, number}
