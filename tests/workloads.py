"""Small fixed jobs: each one thing that a store does, small enough to try every way in which it may crash."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.crashing import Job, an_array, without_chance
from tests.helpers import kill
from trax.testing.recording import RecordingFileSystem


class Workload(Job):
    """Calls on a store, noted in the recording before and after each."""

    def play(self, calls: Callable[[Workload], None], fs: RecordingFileSystem | None = None) -> RecordingFileSystem:
        """Run it on a new store; the recording."""
        self.fs = fs or RecordingFileSystem(self.path.parent)
        self._note(self.fs)
        with without_chance("first life"):
            self.open()
            calls(self)
            self.close()
        return self.fs

    def open(self) -> None:
        self.store = self._open(self.fs)
        # What a writer finds when it opens the store was brought to stable storage before that returned.
        self._all_durable()

    def close(self) -> None:
        store = self.store
        del self.store
        store.close()
        self._all_durable()

    def kill(self) -> None:
        """The process ends without a word; what it had written stays in the page cache."""
        kill(self.store)
        del self.store

    def sync_all(self) -> None:
        self.store.sync()
        self._all_durable()

    def create(self, name: str) -> None:
        self.state[name] = []
        self._commit(self.fs, lambda: (self.store.recover(name, list), self.store.last_sequence)[1], durable=True)

    def log(self, *names: str, nbytes: int = 0) -> None:
        entries = {name: self._entry(name, nbytes) for name in names}
        self._commit(self.fs, lambda: self.store.log(entries), durable=self.sync == "always")

    def log_batch(self, records: list[list[str]]) -> None:
        entries = [{name: self._entry(name, 0) for name in names} for names in records]

        def call() -> int:
            with self.store.batch() as batch:
                for record in entries:
                    batch.log(record)
            assert batch.sequence is not None
            return batch.sequence

        self._commit(self.fs, call, durable=self.sync == "always")

    def checkpoint(self, *names: str, nbytes: int = 0, background: bool = False) -> None:
        values = self._saved(names, nbytes)

        def call() -> int:
            return self.store.checkpoint_async(values).result() if background else self.store.checkpoint(values)

        self._commit(self.fs, call, durable=True)

    def checkpoint_array(self, name: str, *changed: int, other: str = "") -> None:
        """Save a name whose first item is an array, of which some chunks have changed since it was first saved."""
        self.state.setdefault(name, [b""])[0] = an_array(changed)
        self.checkpoint(name, *([other] if other else []))

    def batch(self, before: str, saved: str, after: str) -> None:
        """One atomic commit of an entry, a checkpoint, and another entry."""
        first = {before: self._entry(before, 0)}
        values = self._saved([saved], 0)
        last = {after: self._entry(after, 0)}

        def call() -> int:
            with self.store.batch() as batch:
                batch.log(first)
                batch.checkpoint(values)
                batch.log(last)
            assert batch.sequence is not None
            return batch.sequence

        self._commit(self.fs, call, durable=True)

    def delete(self, name: str) -> None:
        del self.state[name]
        self._commit(self.fs, lambda: self.store.delete(name), durable=True)

    def _entry(self, name: str, nbytes: int) -> Any:
        self.number += 1
        entry = "x" * nbytes or self.number
        self.state[name].append(entry)
        return entry

    def _saved(self, names: Any, nbytes: int) -> dict[str, list[Any]]:
        for name in names:
            self.state.setdefault(name, []).extend(["y" * nbytes] if nbytes else [])
        return {name: list(self.state[name]) for name in names}

    def _all_durable(self) -> None:
        self.model.durable = len(self.model.states) - 1
        self._note(self.fs)


def create(job: Workload) -> None:
    """A new store, and nothing in it."""


def create_value(job: Workload) -> None:
    job.create("a")


def log(job: Workload) -> None:
    job.create("a")
    job.log("a")
    job.log("a")


def log_long_records(job: Workload) -> None:
    job.create("a")
    job.log("a", nbytes=600)
    job.sync_all()
    job.log("a", nbytes=600)


def checkpoint(job: Workload) -> None:
    job.checkpoint("a")
    job.checkpoint("a", "b")


def checkpoint_and_log(job: Workload) -> None:
    job.checkpoint("a", "b")
    job.log("a", "b")
    job.checkpoint("a")
    job.log("a", "b")


def batch_with_checkpoint(job: Workload) -> None:
    job.checkpoint("a", "b")
    job.log("a", "b")
    job.batch("a", "b", "a")
    job.checkpoint("b")  # seals the segment of the batch, with the mark behind its records


def checkpoint_blob(job: Workload) -> None:
    job.checkpoint("a", nbytes=100)
    job.log("a")
    job.checkpoint("a")


def checkpoint_differential(job: Workload) -> None:
    """Two that lean on the one before, one that must be whole, and one that leans on that."""
    job.checkpoint_array("a")
    job.checkpoint_array("a", 2)
    job.log("a")
    job.checkpoint_array("a", 2, 4)
    job.checkpoint_array("a", 1, 2, 3, 4)
    job.checkpoint_array("a", 1, 2, 3, 4, other="b")


def rotate_differential(job: Workload) -> None:
    """What a kept snapshot names is also leant on."""
    job.checkpoint_array("a")
    job.checkpoint_array("a", 3)
    job.log("a")
    job.checkpoint_array("a", 0, 3)


def rotate_kept(job: Workload) -> None:
    for _ in range(3):
        job.checkpoint("a")
        job.log("a")


def compact(job: Workload) -> None:
    """``a`` is logged and never checkpointed again, so what it needs is copied."""
    job.checkpoint("a", "b")
    for _ in range(4):
        job.log("a", "b")
        job.checkpoint("b")


def delete(job: Workload) -> None:
    job.checkpoint("a", "b")
    job.log("a", "b")
    job.delete("a")
    job.log("b")


def close_and_reopen(job: Workload) -> None:
    job.checkpoint("a")
    job.log("a")
    job.close()
    job.open()
    job.log("a")


def reopen_after_a_kill(job: Workload) -> None:
    job.checkpoint("a")
    job.log("a")
    job.kill()
    job.open()
    job.log("a")
    job.kill()
    job.open()


WORKLOADS = [
    create,
    create_value,
    log,
    log_long_records,
    checkpoint,
    checkpoint_and_log,
    batch_with_checkpoint,
    checkpoint_blob,
    checkpoint_differential,
    rotate_differential,
    rotate_kept,
    compact,
    delete,
    close_and_reopen,
    reopen_after_a_kill,
]


def record(
    calls: Callable[[Workload], None],
    root: Path,
    sync: str,
    codec: str = "msgpack",
    make_fs: Callable[[Path], RecordingFileSystem] = RecordingFileSystem,
) -> tuple[Workload, RecordingFileSystem]:
    """Play it below a new directory, in a store named ``store``."""
    root.mkdir(parents=True)
    keep = 2 if calls in (rotate_kept, rotate_differential) else 1
    differential = calls in (checkpoint_differential, rotate_differential)
    job = Workload(root / "store", random.Random(0), sync, keep, codec, differential)
    return job, job.play(calls, make_fs(root))
