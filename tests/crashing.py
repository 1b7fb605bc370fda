"""A random job on a store, and the oracle that judges what a crash has left of it.

Each name's state is a list; an entry is appended to it, a checkpoint saves it. An entry that is lost, doubled, moved or
folded twice therefore shows in the list. ``Model`` knows the state after each commit, and how many commits had been
issued and how many were durable at each operation of the file system.
"""

from __future__ import annotations

import random
import shutil
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trax
from trax.testing.disks import cached_image, crash_images
from trax.testing.recording import RecordingFileSystem

NAMES = ("a", "b", "c")
State = dict[str, list[Any]]


def fold(state: list[Any], entry: Any) -> list[Any]:
    state.append(entry)
    return state


@dataclass
class Model:
    """What the job has done: the state after each commit, and its last sequence."""

    states: list[State] = field(default_factory=lambda: [{}])
    sequences: list[int] = field(default_factory=list)
    durable: int = 0

    def issue(self, state: State) -> None:
        self.states.append({name: list(values) for name, values in state.items()})
        self.sequences.append(-1)


@dataclass
class Job:
    """Random calls on a store, noted in the recording before and after each."""

    path: Path
    dice: random.Random
    sync: str
    keep: int
    codec: str = "msgpack"
    model: Model = field(default_factory=Model)
    state: State = field(default_factory=dict)
    number: int = 0

    def run(self, calls: int) -> RecordingFileSystem:
        fs = RecordingFileSystem(self.path.parent)
        self._note(fs)
        store = self._open(fs)
        for _ in range(calls):
            store = self._call(fs, store)
        store.close()
        self.model.durable = len(self.model.states) - 1
        self._note(fs)
        return fs

    def _open(self, fs: RecordingFileSystem) -> trax.Trax:
        return trax.Trax(self.path, sync=self.sync, keep=self.keep, codec=self.codec, fs=fs, sync_interval_s=1e9)  # type: ignore[arg-type]

    def _call(self, fs: RecordingFileSystem, store: trax.Trax) -> trax.Trax:
        kind = self.dice.choice(
            ["log"] * 5 + ["checkpoint"] * 3 + ["batch", "mixed", "delete", "sync", "reopen", "async"]
        )
        stored = sorted(self.state)
        if (kind in ("log", "batch") and not stored) or (kind == "delete" and len(stored) < 2):
            kind = "create"
        if kind == "reopen":
            store.close()
            self.model.durable = len(self.model.states) - 1
            self._note(fs)
            return self._open(fs)
        if kind == "sync":
            store.sync()
            self.model.durable = len(self.model.states) - 1
            self._note(fs)
            return store
        getattr(self, f"_{kind}")(fs, store)
        return store

    def _create(self, fs: RecordingFileSystem, store: trax.Trax) -> None:
        name = self.dice.choice(NAMES)
        if name in self.state:
            return self._checkpoint(fs, store)
        self.state[name] = []
        self._commit(fs, lambda: (store.recover(name, create=list), store.last_sequence)[1], durable=True)

    def _log(self, fs: RecordingFileSystem, store: trax.Trax) -> None:
        entries = self._entries()
        self._commit(fs, lambda: store.log(entries), durable=self.sync == "always")

    def _batch(self, fs: RecordingFileSystem, store: trax.Trax) -> None:
        records = [self._entries() for _ in range(self.dice.randint(1, 4))]

        def call() -> int:
            with store.batch() as batch:
                for record in records:
                    batch.log(record)
            assert batch.sequence is not None
            return batch.sequence

        self._commit(fs, call, durable=self.sync == "always")

    def _checkpoint(self, fs: RecordingFileSystem, store: trax.Trax) -> None:
        values = self._values()
        self._commit(fs, lambda: store.checkpoint(values), durable=True)

    def _async(self, fs: RecordingFileSystem, store: trax.Trax) -> None:
        values = self._values()
        self._commit(fs, lambda: store.checkpoint_async(values).result(), durable=True)

    def _mixed(self, fs: RecordingFileSystem, store: trax.Trax) -> None:
        before = self._entries() if self.state else {}
        values = self._values()
        after = self._entries()

        def call() -> int:
            with store.batch() as batch:
                if before:
                    batch.log(before)
                batch.checkpoint(values)
                batch.log(after)
            assert batch.sequence is not None
            return batch.sequence

        self._commit(fs, call, durable=True)

    def _delete(self, fs: RecordingFileSystem, store: trax.Trax) -> None:
        name = self.dice.choice(sorted(self.state))
        del self.state[name]
        self._commit(fs, lambda: store.delete(name), durable=True)

    def _commit(self, fs: RecordingFileSystem, call: Any, *, durable: bool) -> None:
        self.model.issue(self.state)
        self._note(fs)
        self.model.sequences[-1] = call()
        if durable:
            self.model.durable = len(self.model.states) - 1
            self._note(fs)

    def _entries(self) -> dict[str, Any]:
        """Entries of some of the names that are stored, appended to their states."""
        names = self.dice.sample(sorted(self.state), self.dice.randint(1, len(self.state)))
        entries = {}
        for name in names:
            self.number += 1
            entry: Any = self.number
            if self.dice.random() < 0.2:
                entry = [self.number, "x" * self.dice.choice([10, 600, 1100])]
            entries[name] = entry
            self.state[name].append(entry)
        return entries

    def _values(self) -> State:
        """The states of some names, to be saved; now and then a new one, or one that is large enough for a blob."""
        names = self.dice.sample(NAMES, self.dice.randint(1, 2))
        for name in names:
            if name not in self.state:
                self.number += 1
                self.state[name] = [self.number]
                if self.dice.random() < 0.4:
                    self.state[name].append("y" * 5000)
        return {name: list(self.state[name]) for name in names}

    def _note(self, fs: RecordingFileSystem) -> None:
        fs.note((self.model.durable, len(self.model.states) - 1))


def recovered(store: trax.Trax, at: int | None = None) -> State:
    """The folded state of every name, as of now or of a sequence."""
    state = {}
    for name in NAMES:
        try:
            state[name] = store.recover(name, None, fold, at=at)
        except KeyError:
            continue
    return state


def judge(path: Path, model: Model, durable: int, issued: int, fs: RecordingFileSystem | None = None) -> int:
    """Open what a crash left, and check it against the model: which commit it is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", trax.TraxWarning)
        store = trax.Trax(path, fs=fs)
    with store:
        state = recovered(store)
        candidates = [number for number in range(issued, durable - 1, -1) if model.states[number] == state]
        assert candidates, f"{state} is no state between commit {durable} and {issued}"
        for snapshot in store.snapshots():
            if snapshot.sequence in model.sequences:
                expected = model.states[model.sequences.index(snapshot.sequence) + 1]
                assert recovered(store, snapshot.sequence) == expected, f"at={snapshot.sequence}"
        assert store.verify().problems == []
        if fs is None:
            name = next(iter(state), "a")
            store.log({name: "after"})
            assert store.recover(name, list, fold) == [*state.get(name, []), "after"]
    return candidates[0]


def crash_everywhere(
    job: Job, calls: int, samples: int, scratch: Path, seen: set[int], *, deep: float = 0.0
) -> tuple[int, int]:
    """Run the job, lay out the disk of each crash, judge it; how many distinct disks, and how many of them two deep."""
    fs = job.run(calls)
    notes = [(0, 0)]
    for operation in fs.operations:
        notes.append(operation.note if operation.kind == "note" else notes[-1])
    tried = nested = 0
    for done, image in crash_images(fs.start, fs.operations, job.dice, samples):
        key = hash((image.key(), notes[done]))
        if key in seen:
            continue
        seen.add(key)
        tried += 1
        durable, issued = notes[done]
        where = scratch / job.path.name
        _lay_out(image, scratch)
        try:
            if job.dice.random() < deep:
                nested += _crash_the_recovery(where, job, durable, issued, seen)
                _lay_out(image, scratch)
            judge(where, job.model, durable, issued)
        except BaseException as error:
            error.add_note(f"after operation {done} of {len(fs.operations)}: {fs.operations[max(0, done - 3) : done]}")
            raise
    return tried, nested


def _crash_the_recovery(where: Path, job: Job, durable: int, issued: int, seen: set[int]) -> int:
    """Open what the crash left, crash that at each of its own operations, and judge what it leaves."""
    scratch = where.parent
    fs = RecordingFileSystem(scratch)
    reached = judge(where, job.model, durable, issued, fs)
    tried = 0
    opening = fs.operations
    for done, image in crash_images(fs.start, opening, job.dice, 1):
        key = hash((image.key(), durable, issued))
        if key in seen:
            continue
        seen.add(key)
        tried += 1
        _lay_out(image, scratch)
        try:
            # Nothing was promised to anybody since: any commit that the first crash could have left is right.
            judge(where, job.model, durable, issued)
        except BaseException as error:
            error.add_note(
                f"in the recovery, which had reached {reached}, after {done} of {opening[max(0, done - 3) : done]}"
            )
            raise
    return tried


def crash_after_a_kill(job: Job, calls: int, samples: int, scratch: Path, seen: set[int], *, share: float) -> int:
    """Kill the job at some of its operations, open the store again, log, close; lose power at each operation of that.

    What the killed process had written and not synced is still in the page cache, and is not on the disk: whoever opens
    the store sees what a power loss would take.
    """
    first = job.run(calls)
    notes = [(0, 0)]
    tried = 0
    for done, operation in enumerate(first.operations):
        notes.append(operation.note if operation.kind == "note" else notes[-1])
        if operation.kind == "note" or job.dice.random() >= share:
            continue
        before = first.operations[: done + 1]
        _lay_out(cached_image(first.start, before), scratch)
        fs = RecordingFileSystem(scratch, goes_on=(first.start, before))
        model = _second_life(scratch / job.path.name, job, notes[-1], fs)
        tried += _lose_power(fs, model, job, len(before) + 1, notes[-1], samples, scratch, seen)
    return tried


def _second_life(path: Path, job: Job, bounds: tuple[int, int], fs: RecordingFileSystem) -> Model:
    """Open, log, close; the states that this life had, of which the first was seen when opening returned."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", trax.TraxWarning)
        store = trax.Trax(path, fs=fs)
    state = recovered(store)
    assert state in job.model.states[bounds[0] : bounds[1] + 1]
    fs.note((0, 0))
    after = state
    if state:
        name = next(iter(state))
        after = {**state, name: [*state[name], "again"]}
        fs.note((0, 1))
        store.log({name: "again"})
        fs.note((1, 1))
    store.close()
    return Model([state, after])


def _lose_power(
    fs: RecordingFileSystem,
    model: Model,
    job: Job,
    after: int,
    bounds: tuple[int, int],
    samples: int,
    scratch: Path,
    seen: set[int],
) -> int:
    notes: list[tuple[int, int] | None] = [None] * after
    for operation in fs.operations[after - 1 :]:
        notes.append(operation.note if operation.kind == "note" else notes[-1])
    tried = 0
    for done, image in crash_images(fs.start, fs.operations, job.dice, samples, after=after):
        note = notes[done]
        key = hash((image.key(), note, bounds))
        if key in seen:
            continue
        seen.add(key)
        tried += 1
        _lay_out(image, scratch)
        try:
            if note is None:
                judge(scratch / job.path.name, job.model, *bounds)
            else:
                judge(scratch / job.path.name, model, *note)
        except BaseException as error:
            error.add_note(
                f"killed after {after - 1}, power lost after {done}: {fs.operations[max(0, done - 3) : done]}"
            )
            raise
    return tried


def _lay_out(image: Any, scratch: Path) -> None:
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    image.lay_out(str(scratch))
