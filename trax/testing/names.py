"""Which names may be on the disk after a power loss: any subset of what was done to a directory since its last fsync.

- What was done to the names of one directory is made durable by an fsync of that directory, and by nothing else: not
  by an fsync of the file that a name leads to, nor of another directory. Until then each of these changes may have
  arrived or not, whatever came before or after it.
- A rename within one directory arrives whole or not at all. One from a directory into another is two changes, one in
  each: the file may be found under both names, or under none.
- A name says nothing about what the file holds: a rename carries no data.
- A directory whose own name is lost takes with it what lies in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import product
from typing import NamedTuple

from trax.testing.contents import Choose
from trax.testing.recording import Image, Operation

_ROOT = -1
_Tree = dict[int, dict[str, int]]
"""Directories and what their names lead to. Files have the numbers of the recording, directories negative ones."""


class _Edit(NamedTuple):
    """A name comes to lead to a node; or, if it still leads there, to nothing."""

    name: str
    node: int
    removes: bool = False


class Change(NamedTuple):
    """What an fsync of ``directory`` makes durable, and what until then arrives whole or not at all."""

    directory: int
    edits: tuple[_Edit, ...]
    paths: tuple[str, ...]


class Found(NamedTuple):
    """The names that lead somewhere: paths to files, and the directories."""

    files: dict[str, int]
    directories: frozenset[str]


class Names:
    """The directories: what is durable, what the operating system shows, and what was done since the last fsyncs."""

    def __init__(self, image: Image) -> None:
        self._last_directory = _ROOT
        self._cached: _Tree = {_ROOT: {}}
        for path in sorted(image.directories):
            self._make_directory(path)
        for path, file in image.names.items():
            directory, name = self._parent(path)
            self._cached[directory][name] = file
        self._durable = _copy(self._cached)
        self._pending: tuple[Change, ...] = ()

    def apply(self, operation: Operation) -> None:
        directory, name = self._parent(operation.path)
        if operation.kind == "rename":
            self._rename(directory, name, operation)
        elif operation.kind == "mkdir":
            self._change(directory, operation.path, _Edit(name, self._make_directory(operation.path)))
        elif operation.kind == "rmdir":
            self._change(directory, operation.path, _Edit(name, self._cached[directory][name], removes=True))
        else:
            self._change(directory, operation.path, _Edit(name, operation.file, operation.kind == "unlink"))

    def sync(self, path: str) -> None:
        """An fsync of a directory."""
        self.lose(path, range(len(self.pending_in(path))))

    def pending_in(self, path: str) -> list[Change]:
        """What was done to the names of a directory since its last fsync."""
        directory = self._directory(path)
        return [change for change in self._pending if change.directory == directory]

    def lose(self, path: str, arrived: Collection[int]) -> None:
        """An fsync of a directory that brings only these of its changes to the disk, counted from 0."""
        for place, change in enumerate(self.pending_in(path)):
            if place in arrived:
                _apply(self._durable, change)
        directory = self._directory(path)
        self._pending = tuple(change for change in self._pending if change.directory != directory)

    def lookup(self, path: str) -> int | None:
        """What the operating system finds there now."""
        directory, name = self._parent(path)
        return self._cached[directory].get(name)

    def cached(self) -> Found:
        """What the operating system shows."""
        return find(self._cached)

    def possible(self, settled: Collection[str] = ()) -> PossibleNames:
        """What may be on the disk; of the paths in ``settled`` nothing is lost."""
        tree = {directory: dict(self._durable.get(directory, {})) for directory in self._cached}
        return PossibleNames(tree, self._pending, settled)

    def _rename(self, directory: int, name: str, operation: Operation) -> None:
        target_directory, target_name = self._parent(operation.target)
        node = self._cached[directory][name]
        goes, comes = _Edit(name, node, removes=True), _Edit(target_name, node)
        if self._cached[target_directory].get(target_name) == node:
            return  # POSIX: two names of one file, or the same name: nothing happens
        paths = (operation.path, operation.target)
        if directory == target_directory:
            self._do(Change(directory, (goes, comes), paths))
        else:
            self._do(Change(target_directory, (comes,), paths))
            self._do(Change(directory, (goes,), paths))

    def _change(self, directory: int, path: str, edit: _Edit) -> None:
        self._do(Change(directory, (edit,), (path,)))

    def _do(self, change: Change) -> None:
        _apply(self._cached, change)
        self._pending += (change,)

    def _make_directory(self, path: str) -> int:
        directory, name = self._parent(path)
        self._last_directory -= 1
        self._cached[self._last_directory] = {}
        self._cached[directory][name] = self._last_directory
        return self._last_directory

    def _parent(self, path: str) -> tuple[int, str]:
        above, _, name = path.rpartition("/")
        return self._directory(above), name

    def _directory(self, path: str) -> int:
        directory = _ROOT
        for part in path.split("/") if path else ():
            directory = self._cached[directory][part]
        return directory


class PossibleNames:
    """All that the directories may hold after a power loss. Iterate for all that differ, or choose one."""

    def __init__(self, durable: _Tree, pending: tuple[Change, ...], settled: Collection[str]) -> None:
        self._durable = durable
        self._pending = pending
        self._open = [not any(path in settled for path in change.paths) for change in pending]

    @property
    def changes(self) -> int:
        """How many changes may have arrived or not."""
        return sum(self._open)

    def __iter__(self) -> Iterator[Found]:
        seen = set()
        for arrived in product((True, False), repeat=self.changes):
            found = self._with(iter(arrived))
            key = frozenset(found.files.items()), found.directories
            if key not in seen:
                seen.add(key)
                yield found

    def choose(self, choose: Choose) -> Found:
        """One of them."""
        return self._with(iter([choose("name", 2) == 0 for _ in range(self.changes)]))

    def _with(self, arrived: Iterator[bool]) -> Found:
        tree = _copy(self._durable)
        for change, is_open in zip(self._pending, self._open, strict=True):
            if not is_open or next(arrived):
                _apply(tree, change)
        return find(tree)


def find(tree: _Tree) -> Found:
    """What can be reached from the root."""
    files: dict[str, int] = {}
    directories: set[str] = set()
    ways: list[tuple[str, int, tuple[int, ...]]] = [("", _ROOT, (_ROOT,))]
    while ways:
        prefix, directory, above = ways.pop()
        for name, node in tree[directory].items():
            if node >= 0:
                files[prefix + name] = node
            elif node not in above:
                directories.add(prefix + name)
                ways.append((f"{prefix}{name}/", node, (*above, node)))
    return Found(files, frozenset(directories))


def _apply(tree: _Tree, change: Change) -> None:
    entries = tree.setdefault(change.directory, {})
    for edit in change.edits:
        if not edit.removes:
            entries[edit.name] = edit.node
        elif entries.get(edit.name) == edit.node:
            del entries[edit.name]


def _copy(tree: _Tree) -> _Tree:
    return {directory: dict(entries) for directory, entries in tree.items()}
