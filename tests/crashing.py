"""A random job on a store, the oracle that judges what a crash has left of it, and the search that crashes it.

Each name's state is a list; an entry is appended to it, a checkpoint saves it. An entry that is lost, doubled, moved or
folded twice therefore shows in the list. ``Model`` knows the state after each commit, and the notes in the recording
say how many commits had been issued and how many were durable at each operation of the file system.
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import shutil
import types
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import trax
from trax.codecs import limits
from trax.storage.local import blob, compaction, creation, directory, segment
from trax.testing.disks import Outcomes, cached_image, moments
from trax.testing.recording import Image, RecordingFileSystem

NAMES = ("a", "b", "c")
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where the crashes are played: they are modelled, and a real disk would only be slow."""
CHUNK_BYTES = 256
"""Of large values, where they are made small."""
State = dict[str, list[Any]]


def an_array(changed: Collection[int] = ()) -> bytes:
    """A value of six chunks, some of which are not as they were: once or twice a differential checkpoint pays."""
    return b"".join(bytes([100 * (place in changed) + place]) * CHUNK_BYTES for place in range(6))


def make_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small jobs must reach blobs, the compaction of the log, and room that is made ahead more than once.

    And what the logger says of torn tails, which are what these searches make, would hide what they find.
    """
    monkeypatch.setattr(logging.getLogger("trax"), "disabled", True)
    monkeypatch.setattr(compaction, "LARGE_BYTES", 200)
    monkeypatch.setattr(compaction, "MANY_SEGMENTS", 2)
    monkeypatch.setattr(directory, "INLINE_BYTES", 64)
    monkeypatch.setattr(limits, "OUT_OF_BAND_BYTES", 100)
    monkeypatch.setattr(blob, "CHUNK_BYTES", CHUNK_BYTES)
    monkeypatch.setattr(blob, "_LARGE_BYTES", 4 * CHUNK_BYTES)
    monkeypatch.setattr(blob, "_LARGE_ALIGNMENT_BYTES", 128)
    monkeypatch.setattr(segment, "_ALLOCATE_FIRST_BYTES", 1024)


@contextmanager
def without_chance(seed: object) -> Iterator[None]:
    """Nothing is random and no time passes, so that equal histories leave equal disks, and count once."""
    dice = random.Random(repr(seed))
    clock = types.SimpleNamespace(time=lambda: 1e9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "urandom", dice.randbytes)
        patch.setattr(secrets, "token_bytes", dice.randbytes)
        patch.setattr(directory, "time", clock)
        patch.setattr(creation, "time", clock)
        yield


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

    @property
    def demand(self) -> Demand:
        return Demand(self, self.durable, len(self.states) - 1)


class Demand(NamedTuple):
    """What a power loss must leave: a state of the model from commit ``durable`` to ``issued``."""

    model: Model
    durable: int
    issued: int

    @property
    def states(self) -> list[State]:
        return self.model.states[self.durable : self.issued + 1]


@dataclass
class Job:
    """Random calls on a store, noted in the recording before and after each."""

    path: Path
    dice: random.Random
    sync: str
    keep: int
    codec: str = "msgpack"
    differential: bool = False
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
        return trax.Trax(
            self.path,
            sync=self.sync,  # type: ignore[arg-type]
            keep=self.keep,
            codec=self.codec,
            fs=fs,
            sync_interval_s=1e9,
            differential=self.differential,
        )

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
        fs.note(self.model.demand)


def recovered(store: trax.Trax, at: int | None = None) -> State:
    """The folded state of every name, as of now or of a sequence."""
    if at is None:
        return store.recover_many(store.names(), None, fold)
    state = {}
    for name in NAMES:
        try:
            state[name] = store.recover(name, None, fold, at=at)
        except KeyError:
            continue
    return state


def judge(path: Path, model: Model, durable: int, issued: int, fs: RecordingFileSystem | None = None) -> int:
    """Open what a crash left, and check it against the model: which commit it is.

    With ``fs``, what opening has brought to light is noted: from then on no power loss may take it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", trax.TraxWarning)
        store = trax.Trax(path, fs=fs)
    with store:
        state = recovered(store)
        candidates = [number for number in range(issued, durable - 1, -1) if model.states[number] == state]
        assert candidates, f"{state} is no state between commit {durable} and {issued}"
        if fs is not None:
            fs.note(Demand(model, candidates[-1], candidates[0]))
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


@dataclass
class Search:
    """Loses power at every moment of recordings and judges what is left, each state of the disk once.

    Where there are at most ``limit`` ways to lose power at a moment all are tried, and otherwise the extremes and
    ``samples``. ``deep``: so large a part of the recoveries is recorded and crashed at each of its own moments.
    ``settled`` are paths of which nothing is lost.
    """

    scratch: Path
    dice: random.Random
    samples: int = 0
    limit: int = 0
    deep: float = 0.0
    settled: Collection[str] = ()
    tried: int = 0
    nested: int = 0
    sampled_moments: int = 0
    seen: set[int] = field(default_factory=set)

    def everywhere(self, fs: RecordingFileSystem, store: str, before: Demand, *, after: int = 0) -> None:
        """Crash a recording at every moment from ``after`` on; ``before`` holds until the first note."""
        for done, image, demand in self._images(fs, before, after):
            try:
                self._lay_out(image)
                if self.dice.random() < self.deep:
                    self._crash_the_recovery(store, demand)
                    self._lay_out(image)
                judge(self.scratch / store, *demand)
            except BaseException as error:
                error.add_note(
                    f"power lost after {done} of {len(fs.operations)}: {fs.operations[max(0, done - 3) : done]}"
                )
                raise
            self.tried += 1

    def after_a_kill(self, fs: RecordingFileSystem, store: str, before: Demand, kills: int) -> None:
        """Kill the process at so many of its operations; open again, log, close; lose power at each moment of that.

        What the killed process had written and not synced is still in the page cache, and is not on the disk: whoever
        opens the store sees what a power loss would take.
        """
        demand = before
        possible = [number for number, operation in enumerate(fs.operations) if operation.kind != "note"]
        chosen = set(self.dice.sample(possible, min(kills, len(possible))))
        for done, operation in enumerate(fs.operations):
            demand = operation.note if operation.kind == "note" else demand
            if done not in chosen:
                continue
            done_before = fs.operations[: done + 1]
            self._lay_out(cached_image(fs.start, done_before))
            again = RecordingFileSystem(self.scratch, goes_on=(fs.start, done_before))
            with without_chance(done):
                _second_life(self.scratch / store, demand, again)
            try:
                self.everywhere(again, store, demand, after=len(done_before) + 1)
            except BaseException as error:
                error.add_note(f"killed after {done}")
                raise

    def _crash_the_recovery(self, store: str, demand: Demand) -> None:
        """Open what the crash left, crash that at each of its own operations, and judge what it leaves."""
        fs = RecordingFileSystem(self.scratch)
        with without_chance("recovery"):
            judge(self.scratch / store, *demand, fs)
        # Until it has returned nothing was promised to anybody: any commit that the first crash may leave is right.
        for done, image, demanded in self._images(fs, demand, 0):
            self._lay_out(image)
            try:
                judge(self.scratch / store, *demanded)
            except BaseException as error:
                last = fs.operations[max(0, done - 3) : done]
                error.add_note(f"in the recovery, after {done} of {len(fs.operations)} operations: {last}")
                raise
            self.nested += 1

    def _images(self, fs: RecordingFileSystem, before: Demand, after: int) -> Iterator[tuple[int, Image, Demand]]:
        demand, noted = before, after
        for done, outcomes in moments(fs.start, fs.operations, after=after, settled=self.settled):
            for operation in fs.operations[noted:done]:
                demand = operation.note if operation.kind == "note" else demand
            noted = done
            for image in self._chosen(outcomes):
                key = hash((image.key(), repr(demand.states)))
                if key not in self.seen:
                    self.seen.add(key)
                    yield done, image, demand

    def _chosen(self, outcomes: Outcomes) -> Iterator[Image]:
        if self.limit and outcomes.count <= self.limit:
            yield from outcomes
            return
        self.sampled_moments += 1
        yield from outcomes.extremes()
        for _ in range(self.samples):
            yield outcomes.sample(self.dice)

    def _lay_out(self, image: Image) -> None:
        lay_out(image, self.scratch)


def lay_out(image: Image, path: Path) -> None:
    """Make an image real, in place of whatever is there."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    image.lay_out(path)


def _second_life(path: Path, demand: Demand, fs: RecordingFileSystem) -> None:
    """Open, log, close. What opening has shown must last, and what is logged then."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", trax.TraxWarning)
        store = trax.Trax(path, fs=fs)
    state = recovered(store)
    assert state in demand.states
    model = Model([state])
    fs.note(model.demand)
    if state:
        name = next(iter(state))
        model.issue({**state, name: [*state[name], "again"]})
        fs.note(model.demand)
        store.log({name: "again"})
        model.durable = 1
        fs.note(model.demand)
    store.close()
