"""What a run of a job has left: its value, its stores, its files; and where that is not what another run has left."""

from __future__ import annotations

import fnmatch
import functools
import gc
import os
import pickle
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from trax.errors import TraxWarning
from trax.inspection import describe_store, verify_store
from trax.names import RESERVED_PREFIX, LayerName
from trax.replay import ReplayLog, last_wins
from trax.storage.local.commit_point import load_snapshot
from trax.storage.local.fs import LocalFileSystem
from trax.storage.local.layout import Layout, segment_numbers
from trax.store import Trax
from trax.testing.differences import difference, shown
from trax.testing.errors import JobError

Replays = dict[tuple[str, str], ReplayLog]
"""By the path of a store and a name: the ``replay_log`` with which the job has recovered it."""

_CHUNK_BYTES = 1 << 20


def remember_replays() -> Replays:
    """From now on, note with which ``replay_log`` this process recovers each name: only the job knows."""
    replays: Replays = {}
    original = Trax.recover_many

    @functools.wraps(original)
    def recover_many(
        self: Trax, names: Iterable[str], create: Any = None, replay_log: Any = last_wins, **options: Any
    ) -> dict[str, Any]:
        wanted = list(names)
        for name in wanted:
            given = replay_log.get(name, last_wins) if isinstance(replay_log, Mapping) else replay_log
            replays[self.path, name] = given
        return original(self, wanted, create, replay_log, **options)

    setattr(Trax, "recover_many", recover_many)  # noqa: B010  # as an assignment, mypy would not take it
    return replays


def close_stores() -> None:
    """Close what the job has left open, as the end of its process would."""
    gc.collect()
    for handle in [candidate for candidate in gc.get_objects() if issubclass(type(candidate), Trax)]:
        handle.close()


def commits_below(directory: str) -> int:
    """How many sequences the stores in a directory have given out."""
    return sum(describe_store(os.path.join(directory, path)).last_sequence for path in _stores_below(directory))


def keep_value(value: Any, path: str) -> None:
    """Keep what a job has returned for the runs that are to be compared with it."""
    with open(path, "wb") as file:
        file.write(_pickled(value))


class Endings:
    """The directory of an uninterrupted run, and that of another one, which has ended in this process."""

    def __init__(
        self, reference: str, directory: str, replays: Replays, ignore: Collection[str], labels: tuple[str, str]
    ) -> None:
        self._reference, self._directory = reference, directory
        self._replays, self._ignore = replays, ignore
        self._labels = f"in the {labels[0]} run", f"in the {labels[1]} run"

    def differences(self, kept_value: str, value: Any) -> list[str]:
        """What differs: in what the job returned, in each name of its stores, in each of its other files."""
        with open(kept_value, "rb") as file:
            found = difference(pickle.load(file), pickle.loads(_pickled(value)))
        values = [] if found is None else [found.told("the returned value", *self._labels)]
        files = list(self._in_files())  # before the stores: replaying is the job's own code, and may write one
        return [*values, *self._in_stores(), *files]

    def _in_stores(self) -> Iterator[str]:
        for path, lacking in self._paired(_stores_below(self._reference), _stores_below(self._directory)):
            ours, theirs = os.path.join(self._directory, path), os.path.join(self._reference, path)
            if lacking:
                yield f"the store {path}: {lacking}"
            elif problems := verify_store(ours).problems:
                yield f"the store {path} is damaged: {problems[0]}"
            else:
                with _reading(theirs) as reference, _reading(ours) as store:
                    yield from self._in_names(path, reference, store)

    def _in_names(self, path: str, reference: Trax, store: Trax) -> Iterator[str]:
        for name, lacking in self._paired(_names_in(reference), _names_in(store)):
            if self._is_ignored(f"{path}:{name}"):
                continue
            if lacking:
                yield f"the store {path}: {name!r}: {lacking}"
                continue
            replay_log = self._replay_log(store.path, name)
            try:
                found = difference(_state_of(reference, name, replay_log), _state_of(store, name, replay_log))
            except Exception as error:  # of the job's own replay_log; that it fails is what the user has to know
                yield f"the store {path}: to recover {name!r} at the end raises {type(error).__name__}: {error}"
                continue
            if found is not None:
                yield f"the store {path}: {found.told(name, *self._labels)}"

    def _replay_log(self, path: str, name: str) -> ReplayLog | None:
        """That of the job; for a store that it has not recovered the name from, such as a copy, that of another one."""
        elsewhere = [replay_log for (_, known), replay_log in self._replays.items() if known == name]
        return self._replays.get((path, name), elsewhere[-1] if elsewhere else None)

    def _in_files(self) -> Iterator[str]:
        for path, lacking in self._paired(_files_below(self._reference), _files_below(self._directory)):
            if self._is_ignored(path):
                continue
            sides = (os.path.join(directory, path) for directory in (self._reference, self._directory))
            if lacking:
                yield f"the file {path}: {lacking}"
            elif found := _file_difference(*sides):
                place, one, other = found
                yield f"the file {path}{place}: {one} {self._labels[0]}, {other} {self._labels[1]}"

    def _paired(self, reference: Collection[str], other: Collection[str]) -> Iterator[tuple[str, str]]:
        """What either has, and what is to be said when only one has it."""
        for one in sorted({*reference, *other}):
            lacking = [label for label, side in zip(self._labels, (reference, other), strict=True) if one not in side]
            yield one, f"missing {lacking[0]}" if lacking else ""

    def _is_ignored(self, path: str) -> bool:
        return any(fnmatch.fnmatchcase(path, pattern) for pattern in self._ignore)


def _stores_below(directory: str) -> list[str]:
    found = []
    for path, _, files in os.walk(directory):
        if "snapshot" in files and segment_numbers(files):
            found.append(os.path.relpath(path, directory))
    return found


@contextmanager
def _reading(path: str) -> Iterator[Trax]:
    fs = LocalFileSystem()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TraxWarning)
        codec = load_snapshot(fs, Layout(path).snapshot).codec  # one of pickles is the job's own, which has just run
        with Trax(path, mode="r", codec=codec, fs=fs) as store:
            yield store


def _names_in(store: Trax) -> list[str]:
    return [info.name for info in describe_store(store.path).names if info.checkpointed or info.entries]


def _state_of(store: Trax, name: str, replay_log: ReplayLog | None) -> Any:
    """What the job would recover; of a name that it only writes, what is checkpointed and what is logged."""
    if name.startswith(RESERVED_PREFIX):
        name = LayerName(name)  # a layer's, which no user could ask for
    stored = name in store
    if replay_log is not None and stored:
        return store.recover(name, replay_log=replay_log)
    checkpoint = store.recover(name, replay_log=lambda state, entry: state) if stored else None
    return {"checkpoint": checkpoint, "log": [entry for _, entry in store.entries(name)]}


def _files_below(directory: str) -> set[str]:
    """The relative paths of all files but those of the stores."""
    stores = {os.path.normpath(os.path.join(directory, path)): path for path in _stores_below(directory)}
    found = set()
    for path, directories, files in os.walk(directory):
        links = [entry for entry in directories if os.path.islink(os.path.join(path, entry))]
        ours = Layout(path).ours if path in stores else lambda entry: False
        directories[:] = [entry for entry in directories if not ours(entry)]
        found |= {os.path.relpath(os.path.join(path, entry), directory) for entry in files + links if not ours(entry)}
    return found


def _file_difference(one: str, other: str) -> tuple[str, str, str] | None:
    """The place, and what either file has there."""
    if os.path.islink(one) or os.path.islink(other):
        targets = [os.readlink(path) if os.path.islink(path) else "a file" for path in (one, other)]
        return None if targets[0] == targets[1] else ("", targets[0], targets[1])
    offset = line = 0
    with open(one, "rb") as first, open(other, "rb") as second:
        while True:
            chunks = first.read(_CHUNK_BYTES), second.read(_CHUNK_BYTES)
            if chunks[0] != chunks[1]:
                return _chunk_difference(*chunks, offset, line)
            if not chunks[0]:
                return None
            offset, line = offset + len(chunks[0]), line + chunks[0].count(b"\n")


def _chunk_difference(one: bytes, other: bytes, offset: int, line: int) -> tuple[str, str, str]:
    length = min(len(one), len(other))
    index = next((at for at in range(length) if one[at] != other[at]), length)
    begin = 1 + one.rfind(b"\n", 0, index)
    rows = [side[max(begin, index - 20) :].partition(b"\n")[0] if side[index:] else b"" for side in (one, other)]
    texts = [
        shown(row) if side[index:] else "the end of the file" for row, side in zip(rows, (one, other), strict=True)
    ]
    number = 1 + line + one.count(b"\n", 0, index)
    return f", byte {offset + index:,} (line {number})", texts[0], texts[1]


def _pickled(value: Any) -> bytes:
    try:
        return pickle.dumps(value)
    except Exception as error:  # whatever the value's own class raises
        text = (
            f"what the job returns can't be compared with what another process returns, for it can't be pickled: "
            f"{error}. Return plain values and arrays, or nothing."
        )
        raise JobError(text, reason="the returned value can't be pickled") from error
