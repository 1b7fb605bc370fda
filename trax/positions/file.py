"""The file: held by one process, replaced whole, with the generation before beside it.

The write is the one by which a store replaces its snapshot: a new file, synced; renamed; the directory synced. Here, a
replacement that failed can simply be tried again, since each writes everything anew.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import NamedTuple

from trax.errors import MissingFileError, StoreNotFoundError
from trax.positions.document import decode, encode
from trax.positions.states import PersistedState
from trax.storage.local.fs import FileSystem, LocalFileSystem, make_missing_directories, write_file
from trax.storage.local.lock import Words, WriterLock
from trax.storage.local.refusal import asking

DIRECTORY_MODE = 0o750
FILE_MODE = 0o600


class _Place(NamedTuple):
    """Where the files lie that belong to one file of positions."""

    path: str
    lock: str
    owner: str
    previous: str


class PositionsFile:
    """A file that is held for writing: created if there is none, with the directories above it.

    Raises StoreLockedError, CorruptionError, StorageError.
    """

    def __init__(self, path: str | os.PathLike[str], fs: FileSystem | None = None) -> None:
        self._fs = fs or LocalFileSystem()
        self.path = os.path.abspath(os.fspath(path))
        self._directory, name = os.path.split(self.path)
        self._place = _Place(self.path, self.path + ".lock", self.path + ".owner", self.path + ".previous")
        # Of this process alone: where locks lie, another may be writing at the same time.
        self._new = f"{self.path}.new.{os.urandom(4).hex()}"
        self._unfinished = re.compile(re.escape(name) + r"\.new\.[0-9a-f]{8}")
        with asking("create", self._directory):
            make_missing_directories(self._fs, self._directory, DIRECTORY_MODE)
        to_free = f"removing {self._place.owner} frees the positions"
        words = Words("the file of positions", "use trax.positions.read()", to_free)
        self._lock = WriterLock(self._fs, self._place, words)
        try:
            self._sweep()
            self._data = self._load()
            self.persisted = decode(self._data, self.path) if self._data is not None else None
        except BaseException:
            self._lock.release()
            raise

    def replace(self, persisted: PersistedState) -> None:
        """Make this the content of the file; on stable storage when it returns. If it fails, try again."""
        data = encode(persisted)
        with asking("write", self.path):
            if self._data is not None:
                self._put(self._place.previous, self._data)
            self._put(self.path, data)
            # Makes durable: that the names lead to the new files. A power loss before may bring either old one back.
            self._fs.fsync_directory(self._directory)
        self._data = data

    def close(self) -> None:
        """Let the next process in."""
        with asking("unlock", self.path):
            self._lock.release()

    def abandon(self) -> None:
        """In a forked child: leave the lock to the parent."""
        self._lock.abandon()

    def _put(self, path: str, data: bytes) -> None:
        self._fs.close(write_file(self._fs, self._new, data, FILE_MODE))
        self._fs.rename(self._new, path)

    def _load(self) -> bytes | None:
        with asking("look at", self.path):
            kinds = [self._fs.kind(path) for path in (self.path, self._place.previous)]
        if kinds == ["absent", "absent"]:
            return None
        if kinds[0] == "absent":
            text = (
                f"{self.path} is gone, and {self._place.previous}, the generation before it, is there: no crash leaves "
                f"that. Copy it over, or remove it too to start afresh."
            )
            raise MissingFileError(text, path=self.path, reason="the file is gone")
        return _contents(self._fs, self.path)

    def _sweep(self) -> None:
        """Remove what a process left that was killed while it wrote."""
        with asking("sweep", self._directory):
            for entry in self._fs.listdir(self._directory):
                if self._unfinished.fullmatch(entry):
                    with suppress(FileNotFoundError):
                        self._fs.unlink(os.path.join(self._directory, entry))


def read(file: str | os.PathLike[str], *, fs: FileSystem | None = None) -> PersistedState:
    """What a file of positions holds, beside a process that writes to it; takes no lock and changes nothing.

    Raises StoreNotFoundError if there is none, and CorruptionError.
    """
    path = os.path.abspath(os.fspath(file))
    return decode(_contents(fs or LocalFileSystem(), path), path)


def _contents(fs: FileSystem, path: str) -> bytes:
    with asking("read", path):
        try:
            fd = fs.open(path)
        except FileNotFoundError as error:
            text = f"there is no file of positions at {path}. trax.positions.Positions() creates one."
            raise StoreNotFoundError(text, path=path, reason="absent") from error
        try:
            return fs.pread(fd, fs.size(fd), 0)
        finally:
            fs.close(fd)
