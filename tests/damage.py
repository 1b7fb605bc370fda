"""Stores to be damaged, with all that they ever were, and every damage that is tried on them."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import pytest

import trax
from tests import witness
from tests.crashing import CHUNK_BYTES, an_array
from tests.helpers import kill
from trax.codecs import limits
from trax.repair import Repair
from trax.storage.local import blob, compaction, directory, owner, segment

Files = dict[str, bytes]
State = dict[str, Any]
SECTOR_BYTES = 512


def small_stores(patch: pytest.MonkeyPatch) -> None:
    """Let little values be blobs and little logs be compacted: a store of every kind of file has few bytes then.

    Who we are is asked once: reading it from the system takes longer than all the rest of an opening.
    """
    patch.setattr(owner, "_first_line", lru_cache(maxsize=8)(owner._first_line))
    patch.setattr(directory, "INLINE_BYTES", 60)
    patch.setattr(limits, "OUT_OF_BAND_BYTES", 100)
    patch.setattr(blob, "CHUNK_BYTES", CHUNK_BYTES)
    patch.setattr(witness, "CHUNK_BYTES", CHUNK_BYTES)
    patch.setattr(segment, "_ALLOCATE_FIRST_BYTES", 1024)
    patch.setattr(compaction, "LARGE_BYTES", 200)


def read_files(path: Path) -> Files:
    """The files of a store, but for the file ``lock``, which says who opened it last."""
    files: Files = {}
    for where, _, names in os.walk(path):
        for name in names:
            file = os.path.join(where, name)
            with open(file, "rb") as opened:
                files[os.path.relpath(file, path)] = opened.read()
    files.pop("lock", None)
    return files


def without_room(data: bytes) -> bytes:
    """A segment without the zeros that were made ahead of the writes."""
    end = witness.walk(data, 0, judge=False).ends[-1][0] if len(data) >= 48 else len(data)
    return data if any(data[end:]) else data[:end]


def lay_out(files: Files, path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    for name in ("", "blobs", "kept"):
        (path / name).mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        if name.count("/") > 1:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
        with open(f"{path}/{name}", "wb") as file:
            file.write(data)


class Life:
    """A store while it is made: the states that it has had, and copies that were taken of it meanwhile."""

    def __init__(self, path: Path, **options: Any) -> None:
        shutil.rmtree(path, ignore_errors=True)
        self.path, self.options = path, options
        self.state: State = {}
        self.states: dict[int, State] = {0: {}}
        self.copies: list[Files] = []
        self.store = trax.Trax(path, **options)

    def log(self, **entries: Any) -> None:
        self._follow(entries)
        self._had(self.store.log(entries))

    def checkpoint(self, *names: str, **new: Any) -> None:
        """Save what some names are; those in ``new`` begin with it."""
        self.state |= new
        self._had(self.store.checkpoint({name: self.state[name] for name in (*names, *new)}))

    def batch(self, *steps: dict[str, Any] | str) -> None:
        """Entries, or the name of what is checkpointed."""
        with self.store.batch() as batch:
            for step in steps:
                if isinstance(step, str):
                    batch.checkpoint({step: self.state[step]})
                else:
                    batch.log(step)
                    self._follow(step)
        assert batch.sequence is not None
        self._had(batch.sequence)

    def delete(self, name: str) -> None:
        del self.state[name]
        self._had(self.store.delete(name))

    def sync(self) -> None:
        self.store.sync()

    def copy(self) -> None:
        """Take a copy that may be put back later."""
        self.copies.append(read_files(self.path))

    def reopen(self, *, killed: bool = False) -> None:
        kill(self.store) if killed else self.store.close()
        self.store = trax.Trax(self.path, **self.options)

    def _follow(self, entries: dict[str, Any]) -> None:
        self.state |= {name: [*self.state[name], entry] for name, entry in entries.items()}

    def _had(self, sequence: int) -> None:
        self.states[sequence] = dict(self.state)


@dataclass
class Subject:
    """A store as its last writer left it."""

    name: str
    files: Files
    copies: list[Files]
    states: dict[int, State]
    """What it was after each commit, by the sequence."""
    others: Files = field(default_factory=dict)
    """Files beside the store's own that are not damaged: what a repair took out."""

    active: str = ""
    """The file that is appended to."""

    def as_of(self, sequence: int) -> State:
        return self.states[max(one for one in self.states if one <= sequence)]


def _begin(life: Life) -> None:
    """Every kind of file: sealed segments, one that is active, a blob with a buffer, one without, a value inline."""
    life.checkpoint(a=["x" * 70], b=[], c=[bytes(range(120))])
    life.log(a=1, b=2)
    life.log(b=3, c="d")
    life.copy()
    life.checkpoint("a", "c")
    life.log(a=4, b=-4)
    life.copy()


def _go_on(life: Life) -> None:
    for number in range(5, 8):
        life.log(a=number, b=-number)
    life.log(c=b"bytes", b="x" * 30)


def _plain(life: Life) -> None:
    _begin(life)
    life.checkpoint("a")
    _go_on(life)


def _compacted(life: Life) -> None:
    life.checkpoint(a=[], b=[], c=[])
    life.log(b="survives")
    life.copy()
    for _ in range(4):
        life.log(a="y" * 150)
        life.copy()
        life.checkpoint("a")
    numbers = sorted(int(file.name[4:]) for file in life.path.glob("log.*"))
    assert len(numbers) == 2, "the survivors were copied"
    life.log(b="later", c=1)


def _batched(life: Life) -> None:
    _begin(life)
    life.batch({"a": 5}, "a", {"a": 6, "b": 7}, {"b": 8})
    life.copy()
    life.log(a=9)
    life.batch({"b": 10}, {"a": 11})


def _reopened(life: Life) -> None:
    _begin(life)
    life.reopen()
    life.log(a=5)
    life.copy()
    life.reopen()
    life.copy()
    _go_on(life)


def _recovered(life: Life) -> None:
    """Opened again after a kill: what was not proven was written again."""
    _begin(life)
    life.log(a=5)
    life.reopen(killed=True)
    life.copy()
    life.log(a=6, b=6)
    life.delete("c")
    life.log(b=7)


def _unsynced(life: Life) -> None:
    _begin(life)
    life.sync()
    life.log(a=5)
    life.log(b=6)
    life.sync()
    life.copy()
    _go_on_without_c(life)


def _differential(life: Life) -> None:
    """The value of one name lies in three files, of which the oldest is that of a kept snapshot too."""
    life.checkpoint(a=[], c=[an_array()])
    life.log(a=1, c="c")
    life.copy()
    for changed in ([2], [2, 5]):
        life.state["c"] = [an_array(changed), *life.state["c"][1:]]
        life.checkpoint("c")
        life.copy()
        life.log(a=2, c=len(changed))
    numbers = [int(file.name) for file in (life.path / "blobs").iterdir()]
    assert sorted(numbers) == [1, 2, 3], "the last leans on both"


def _go_on_without_c(life: Life) -> None:
    for number in range(7, 10):
        life.log(a=number, b=-number)


def _empty(life: Life) -> None:
    """Nothing was logged since the last checkpoint."""
    life.checkpoint(a=["x" * 70], b=[1])
    life.log(a=2)
    life.copy()
    life.checkpoint("a", "b")
    life.copy()
    life.delete("b")


def _leftovers(life: Life) -> None:
    """What a crash leaves in the middle of a checkpoint: files that nothing names."""
    _begin(life)
    _go_on(life)
    (life.path / "snapshot.new.0123abcd").write_bytes((life.path / "snapshot").read_bytes()[:50])
    last = max(life.path.glob("log.*"))
    header = last.read_bytes()[:28] + (int(last.name[4:]) + 1).to_bytes(8, "little") + b"new salt"
    (life.path / f"log.{int(last.name[4:]) + 1:08}").write_bytes(header)
    (life.path / "blobs" / "00000077").write_bytes(b"half a blob")


def _repaired(life: Life) -> None:
    """Its last record was damaged, and a repair left it out."""
    _begin(life)
    before = dict(life.state)
    life.log(a=5)
    life.store.close()
    life.copy()
    victim = max(life.path.glob("log.*"))
    data = victim.read_bytes()
    victim.write_bytes(_with(data, data.rindex(b"trxR") + 50, b"rot"))
    with Repair(life.path) as repair:
        assert repair.possible and repair.plan.problems
        assert repair.carry_out().ok
    life.state = before
    life.store = trax.Trax(life.path, **life.options)
    life.copy()
    life.log(b=6)
    life.checkpoint("b")
    life.log(a=7)


class Kind(NamedTuple):
    """How a subject is made: ``end`` is how its last writer left it."""

    story: Callable[[Life], None]
    options: dict[str, Any]
    end: str


_CLOSED, _KILLED, _PREALLOCATED = "closed", "killed", "preallocated"

KINDS: dict[str, Kind] = {
    "closed": Kind(_plain, {}, _CLOSED),
    "closed, keep 3": Kind(_plain, {"keep": 3}, _CLOSED),
    "killed, json, keep 3": Kind(_plain, {"keep": 3, "codec": "json"}, _KILLED),
    "killed, room ahead": Kind(_plain, {"keep": 2}, _PREALLOCATED),
    "closed, json": Kind(_plain, {"codec": "json"}, _CLOSED),
    "killed, synced in the middle": Kind(_unsynced, {"sync": "os"}, _KILLED),
    "compacted": Kind(_compacted, {}, _KILLED),
    "compacted, json, keep 2, closed": Kind(_compacted, {"codec": "json"}, _CLOSED),
    "batches": Kind(_batched, {"keep": 2}, _KILLED),
    "opened three times": Kind(_reopened, {}, _KILLED),
    "opened after a kill": Kind(_recovered, {"keep": 2}, _CLOSED),
    "nothing logged since": Kind(_empty, {"keep": 3}, _KILLED),
    "leftovers of a crash": Kind(_leftovers, {}, _KILLED),
    "repaired": Kind(_repaired, {}, _CLOSED),
    "differential, closed": Kind(_differential, {"differential": True}, _CLOSED),
    "differential, json, keep 2": Kind(_differential, {"differential": True, "keep": 2, "codec": "json"}, _KILLED),
}


def make(name: str, scratch: Path) -> Subject:
    """One of the KINDS; the caller has called :func:`small_stores`."""
    kind = KINDS[name]
    life = Life(scratch / "original", **kind.options)
    kind.story(life)
    if kind.end == _CLOSED:
        life.store.close()
    files = read_files(life.path)
    life.store.close()
    active = f"log.{msgpack.unpackb(files['snapshot'][32:])[1][-1][0]:08}"
    subject = Subject(name, files, life.copies, life.states, active=active)
    for one in [name for name in files if name.startswith("removed/")]:
        subject.others[one] = files.pop(one)
    for copy in [files, *subject.copies]:
        for one in copy:
            if one.startswith("log.") and kind.end != _PREALLOCATED:
                copy[one] = without_room(copy[one])
    return subject


class Damage(NamedTuple):
    """What was done to which file; the files afterwards."""

    what: str
    name: str
    files: Files


def damages(subject: Subject, stride: int, dice: random.Random) -> Iterator[Damage]:
    """Each damage that is tried on a store: with a stride of 1 all of them, otherwise one in so many."""
    files = subject.files
    for name, data in files.items():
        for what, changed in _changed(data, stride, dice):
            yield Damage(what, name, {**files, name: changed})
        yield Damage("removed", name, {other: content for other, content in files.items() if other != name})
    for one in (*_exchanged(subject), *_put_back(subject, dice)):
        if dice.randrange(min(stride, 20)) == 0:
            yield one


def _changed(data: bytes, stride: int, dice: random.Random) -> Iterator[tuple[str, bytes]]:
    first = dice.randrange(stride)
    for place in range(first, len(data), stride):
        for bits in (1 << place % 8, 0xFF, 1 << (place + 5) % 8) if stride == 1 else (1 << place % 8,):
            yield f"byte {place} changed by {bits:#x}", _with(data, place, bytes([data[place] ^ bits]))
        yield f"cut to {place}", data[:place]
        if stride == 1 or place % 3 == 0:
            yield f"zeros from {place} on", data[:place] + bytes(len(data) - place)
    yield "cut to nothing", b""
    starts = range(0, len(data), SECTOR_BYTES)
    for start in starts:
        end = min(start + SECTOR_BYTES, len(data))
        yield f"sector {start} zeroed", _with(data, start, bytes(end - start))
        yield f"sector {start} filled with garbage", _with(data, start, dice.randbytes(end - start))
        for other in starts:
            sector = data[other : other + end - start]
            yield f"sector {start} replaced by {other}", _with(data, start, sector)
        yield f"garbage from {start} on", data[:start] + dice.randbytes(len(data) - start)
        yield f"sector {start} taken out", data[:start] + data[end:]
    for nbytes in (1, 47, 48, SECTOR_BYTES):
        yield f"{nbytes} zeros behind it", data + bytes(nbytes)
        yield f"{nbytes} bytes of garbage behind it", data + dice.randbytes(nbytes)
        yield f"its first {nbytes} bytes behind it", data + data[:nbytes]


def _with(data: bytes, place: int, part: bytes) -> bytes:
    return data[:place] + part + data[place + len(part) :]


def _exchanged(subject: Subject) -> Iterator[Damage]:
    files = subject.files
    for name in files:
        for other, content in files.items():
            if other != name:
                yield Damage(f"replaced by {other}", name, {**files, name: content})
                if other > name:
                    yield Damage(f"exchanged with {other}", name, {**files, name: content, other: files[name]})


def _put_back(subject: Subject, dice: random.Random) -> Iterator[Damage]:
    """Files of an older copy, one in the place of each other, and several together."""
    files = subject.files
    for number, copy in enumerate(subject.copies):
        for name in files:
            for other, content in copy.items():
                yield Damage(f"replaced by {other} of copy {number}", name, {**files, name: content})
        for other, content in copy.items():
            if other not in files:
                yield Damage(f"put back from copy {number}", other, {**files, other: content})
        yield Damage(f"all but it put back from copy {number}", "the store", {**copy})
        for name in sorted({*files, *copy}):
            others = {one: content for one, content in copy.items() if one != name}
            kept = {name: files[name]} if name in files else {}
            yield Damage(f"all others put back to copy {number}", name, {**others, **kept})
        names = sorted({*files, *copy})
        for _ in range(200):
            back = {name for name in names if dice.random() < 0.5}
            mixed = {name: content for name, content in files.items() if name not in back}
            mixed |= {name: content for name, content in copy.items() if name in back}
            yield Damage(f"{', '.join(sorted(back))} put back to copy {number}", "several", mixed)
