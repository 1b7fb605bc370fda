"""``checkpoint_logger``'s class ``Checkpoint``, on an :class:`trax.events.EventLog`.

The store is ``directory/.checkpoint``, as JSON lines. If the old library has left its files there, their events are the
first of the new store: read when it is created and made durable in one commit, so this happens once, whatever crashes.
The old files are not moved and not changed; the store does not need them any more.

An old file is named ``<key><unix seconds>`` and holds one JSON object of one key, ``{object: event}``, a line. Times
have ten digits, which they had from 2001 on, so keys may end in digits too.
"""

from __future__ import annotations

import json
import logging
import os
import re
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from trax.commit import SyncPolicy
from trax.errors import CorruptionError, NotAStoreError, TornTailWarning
from trax.events import EventLog
from trax.layers import LayerStore
from trax.storage.local.fs import FileSystem, LocalFileSystem
from trax.storage.local.layout import Layout
from trax.storage.local.refusal import asking

OLD_FILE = re.compile(r"(?P<key>.*)(?P<seconds>[1-9][0-9]{9})", re.DOTALL)

logger = logging.getLogger("trax")


class Checkpoint:
    """Checkpoint logs in ``directory/.checkpoint``: streams (log keys) hold events about objects.

    ``sync`` is that of :class:`trax.Trax`. Any number of threads may use one handle, and write to the same stream.
    Close it, or use it in a ``with`` statement.
    """

    def __init__(
        self, directory: str | os.PathLike[str], *, sync: SyncPolicy = "always", fs: FileSystem | None = None
    ) -> None:
        self._log = _TakingOver(os.path.join(os.fspath(directory), ".checkpoint"), sync, fs or LocalFileSystem())

    def createCheckpointLog(self, key: str) -> None:
        """Open a stream for writing. One that is open, or that was written to before, goes on."""
        self._log.create_stream(key)

    def writeCheckpoint(self, key: str, object: Any, event: Any) -> None:
        """Log an event of an object; on stable storage when this returns, unless ``sync`` says otherwise.

        StreamError (a KeyError) if the stream was not created, or was released.
        """
        self._log.write(key, object, event)

    def getCheckpoints(self, object: Any) -> list[Any]:
        """The events of an object in the order in which they were logged, in all streams; none: an empty list."""
        return self._log.events(object)

    def getCheckpointKeys(self) -> list[Any]:
        """The objects that have events."""
        return self._log.objects()

    def getCheckpointLogKeys(self) -> list[str]:
        """The streams that were created and not released."""
        return self._log.streams()

    def releaseCheckpointLog(self, key: str) -> None:
        """Close a stream. Its events stay."""
        self._log.release_stream(key)

    def compact(self) -> None:
        """Checkpoint the events, so that the log can be truncated. See :meth:`trax.events.EventLog.compact`."""
        self._log.compact()

    def close(self) -> None:
        """Sync, and let go of the store. A second call does nothing."""
        self._log.close()

    def __enter__(self) -> Checkpoint:
        self._log.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Store(LayerStore):
    _beside = OLD_FILE


class _TakingOver(EventLog):
    """An event log that begins with the events of the old files in its directory."""

    _store_class = _Store

    def __init__(self, path: str, sync: SyncPolicy, fs: FileSystem) -> None:
        self._old = OldDirectory(path, fs)
        super().__init__(path, sync=sync, codec="json", fs=fs)

    def _first_events(self) -> Iterator[tuple[str, Any, Any]]:
        return self._old.events()


class OldDirectory:
    """The files of the old library in a directory. NotAStoreError if one of them is in the way of a store's."""

    def __init__(self, path: str, fs: FileSystem) -> None:
        self._fs, self._layout = fs, Layout(path)
        with asking("look at", path):
            if fs.kind(path) == "directory" and fs.kind(self._layout.snapshot) == "absent":
                self._check_names()

    def events(self) -> Iterator[tuple[str, Any, Any]]:
        """Stream, object and event of each line, in the order of the times in the names.

        A line that can't be read is a CorruptionError, except an unfinished last one: a crash leaves that, and it is
        reported.
        """
        with asking("look at", self._layout.path):
            matches = map(OLD_FILE.fullmatch, self._fs.listdir(self._layout.path))
        for match in sorted(filter(None, matches), key=lambda match: (match["seconds"], match["key"])):
            for object, event in self._lines(os.path.join(self._layout.path, match[0])):
                yield match["key"], object, event

    def _lines(self, path: str) -> Iterator[tuple[str, Any]]:
        *lines, unfinished = self._read(path).split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                parsed = _parsed(line)
            except (ValueError, RecursionError) as error:
                raise _unreadable(path, number, error) from error
            yield parsed
        if unfinished:
            try:
                parsed = _parsed(unfinished)
            except (ValueError, RecursionError):
                _report(path, len(lines) + 1, len(unfinished))
            else:
                yield parsed  # it lacks nothing but its end

    def _read(self, path: str) -> bytes:
        with asking("read", path):
            fd = self._fs.open(path)
            try:
                return self._fs.pread(fd, self._fs.size(fd), 0)
            finally:
                self._fs.close(fd)

    def _check_names(self) -> None:
        for entry in self._fs.listdir(self._layout.path):
            if OLD_FILE.fullmatch(entry) and self._layout.ours(entry):
                path = os.path.join(self._layout.path, entry)
                text = (
                    f"{path} has a name that the store in {self._layout.path} needs for a file of its own, so what is "
                    f"in it can't be taken over. Give it another key, for example 'old-{entry}'."
                )
                raise NotAStoreError(text, path=path, reason="a name of the store's own")


def _parsed(line: bytes) -> tuple[str, Any]:
    found = json.loads(line.decode())
    if not isinstance(found, dict) or len(found) != 1:
        raise ValueError("it is not an object with one key")
    ((object, event),) = found.items()
    return object, event


def _unreadable(path: str, number: int, error: Exception) -> CorruptionError:
    text = (
        f"{path}, line {number}, can't be read: {error}. Nothing was taken over. Correct the line, or remove it, and "
        f"open the directory again."
    )
    return CorruptionError(text, path=path, reason=f"line {number} can't be read")


def _report(path: str, number: int, nbytes: int) -> None:
    text = (
        f"{path}: the last line, {number}, is unfinished: a crash cut it off while it was being written. Its "
        f"{nbytes:,} bytes are not taken over, and stay where they are."
    )
    logger.warning(text)
    warnings.warn(TornTailWarning(text), stacklevel=2)
