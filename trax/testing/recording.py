"""A file system that does everything for real, and writes down what it was asked for.

What it writes down is enough to say what a power loss could leave behind: which bytes were written to which file, which
names were made, moved and removed, and which of that was synced. See :mod:`trax.testing.disks`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trax.storage.local.fs import LocalFileSystem


@dataclass(frozen=True)
class Operation:
    """One operation. ``file`` is the number of a file, which it keeps when it is renamed; ``path`` is relative."""

    kind: str
    file: int = -1
    path: str = ""
    target: str = ""
    offset: int = 0
    data: bytes = b""
    size: int = 0
    note: Any = None


@dataclass
class Image:
    """What is on a disk: the contents of files by their number, and the names that lead to them."""

    contents: dict[int, bytes] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)

    def lay_out(self, root: str | os.PathLike[str]) -> None:
        """Make it real, in a directory without files; directories may be there."""
        root = os.fspath(root)
        reachable = {""}  # a directory whose own name is lost takes with it what lies in it
        for directory in sorted(self.directories):
            if os.path.dirname(directory) in reachable:
                reachable.add(directory)
                os.makedirs(os.path.join(root, directory), exist_ok=True)
        first: dict[int, str] = {}
        for path, file in self.names.items():
            if os.path.dirname(path) not in reachable:
                continue
            path = os.path.join(root, path)
            if first.setdefault(file, path) != path:
                os.link(first[file], path)
                continue
            with open(path, "wb") as handle:
                handle.write(self.contents.get(file, b""))

    def key(self) -> int:
        """The same for the same image, in this process."""
        names = frozenset((path, self.contents.get(file, b"")) for path, file in self.names.items())
        return hash((names, frozenset(self.directories)))


def image_of(root: str | os.PathLike[str]) -> Image:
    """What there is below a directory."""
    image = Image()
    root = os.path.abspath(os.fspath(root))
    numbers: dict[tuple[int, int], int] = {}
    for directory, directories, files in os.walk(root):
        image.directories.update(os.path.relpath(os.path.join(directory, entry), root) for entry in directories)
        for entry in files:
            path = os.path.join(directory, entry)
            status = os.stat(path)
            number = numbers.setdefault((status.st_dev, status.st_ino), len(numbers))
            image.names[os.path.relpath(path, root)] = number
            if number not in image.contents:
                with open(path, "rb") as handle:
                    image.contents[number] = handle.read()
    return image


def names_after(start: Image, operations: Sequence[Operation]) -> dict[str, int]:
    """Which names lead to which files, as the operating system sees it, when all of the operations are done."""
    names = dict(start.names)
    for operation in operations:
        if operation.kind in ("create", "link"):
            names[operation.path] = operation.file
        elif operation.kind == "unlink":
            del names[operation.path]
        elif operation.kind == "rename":
            _rename(names, operation.path, operation.target)
    return names


def _rename(names: dict[str, int], source: str, target: str) -> int:
    """Follow a rename; the number of the file, -1 for a directory."""
    if source in names:
        file = names[target] = names[source]
        if source != target:
            del names[source]
        return file
    for path in [path for path in names if path.startswith(source + "/")]:
        names[target + path.removeprefix(source)] = names.pop(path)
    return -1


class RecordingFileSystem(LocalFileSystem):
    """Records every change below ``root``; what is there at the beginning counts as synced.

    With ``goes_on``, a beginning and operations since, the recording continues where a process was killed: what lies
    below ``root`` is then what the operating system had of these operations, not what the disk had.
    """

    def __init__(
        self, root: str | os.PathLike[str], *, goes_on: tuple[Image, Sequence[Operation]] | None = None
    ) -> None:
        self.root = os.path.abspath(os.fspath(root))
        self.operations: list[Operation] = []
        # By plain numbers: what is held here must not keep a file open that nobody else holds any more.
        self._open: dict[int, int] = {}
        self._names: dict[str, int] = {}
        self._next = 0
        self._guard = threading.RLock()
        if goes_on is None:
            self.start = image_of(self.root)
            self._names, self._next = dict(self.start.names), len(self.start.contents)
        else:
            self.start, self.operations = goes_on[0], list(goes_on[1])
            self._names = dict(names_after(self.start, self.operations))
            numbers = [operation.file for operation in self.operations]
            self._next = 1 + max([-1, *self.start.contents, *numbers])

    @property
    def open_files(self) -> list[str]:
        """The names of the files that were opened and not closed."""
        with self._guard:
            numbers = {*self._open.values()}
            return sorted(path for path, number in self._names.items() if number in numbers)

    def note(self, note: Any) -> None:
        """Write down something that is not an operation, such as what has been acknowledged."""
        self._record(Operation("note", note=note))

    def open(self, path: str, *, write: bool = False) -> int:
        with self._guard:
            fd = super().open(path, write=write)
            self._open[int(fd)] = self._names[self._relative(path)]
            return fd

    def create(self, path: str, mode: int | None = None) -> int:
        with self._guard:
            fd = super().create(path, mode)
            relative = self._relative(path)
            self._open[int(fd)] = self._names[relative] = self._next
            self._record(Operation("create", file=self._next, path=relative))
            self._next += 1
            return fd

    def close(self, fd: int) -> None:
        with self._guard:
            self._open.pop(fd, None)
            super().close(fd)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        with self._guard:
            written = super().pwrite(fd, data, offset)
            self._record(Operation("write", file=self._open[fd], offset=offset, data=bytes(data[:written])))
            return written

    def allocate(self, fd: int, offset: int, nbytes: int) -> None:
        with self._guard:
            super().allocate(fd, offset, nbytes)
            self._record(Operation("allocate", file=self._open[fd], size=offset + nbytes))

    def truncate(self, fd: int, nbytes: int) -> None:
        with self._guard:
            super().truncate(fd, nbytes)
            self._record(Operation("truncate", file=self._open[fd], size=nbytes))

    def fsync(self, fd: int) -> None:
        with self._guard:
            super().fsync(fd)
            if fd in self._open:
                self._record(Operation("fsync", file=self._open[fd]))

    def fdatasync(self, fd: int) -> None:
        with self._guard:
            super().fdatasync(fd)
            self._record(Operation("fsync", file=self._open[fd]))

    def rename(self, source: str, target: str) -> None:
        with self._guard:
            super().rename(source, target)
            source, target = self._relative(source), self._relative(target)
            file = _rename(self._names, source, target)
            self._record(Operation("rename", file=file, path=source, target=target))

    def link(self, source: str, target: str) -> None:
        with self._guard:
            super().link(source, target)
            file = self._names[self._relative(target)] = self._names[self._relative(source)]
            self._record(Operation("link", file=file, path=self._relative(target)))

    def unlink(self, path: str) -> None:
        with self._guard:
            super().unlink(path)
            file = self._names.pop(self._relative(path))
            self._record(Operation("unlink", file=file, path=self._relative(path)))

    def mkdir(self, path: str, mode: int | None = None) -> None:
        with self._guard:
            super().mkdir(path, mode)
            self._record(Operation("mkdir", path=self._relative(path)))

    def rmdir(self, path: str) -> None:
        with self._guard:
            super().rmdir(path)
            self._record(Operation("rmdir", path=self._relative(path)))

    def fsync_directory(self, path: str) -> None:
        with self._guard:
            super().fsync_directory(path)
            relative = self._relative(path)
            if relative.split(os.sep)[0] != os.pardir:  # what lies above the root counts as synced
                self._record(Operation("fsync_directory", path=relative))

    def _record(self, operation: Operation) -> None:
        with self._guard:
            self.operations.append(operation)

    def _relative(self, path: str) -> str:
        relative = os.path.relpath(path, self.root)
        return "" if relative == "." else relative
