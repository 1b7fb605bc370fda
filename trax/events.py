"""Streams of events about objects, in the order in which they were logged.

Everything is one name of a store, ``trax:events``. An event is one entry of its log, ``[stream, object, event]``; the
order of the events is that of the log. What a checkpoint saves is the list of all events, each with its sequence: a
reader whom the checkpoint has overtaken can go on from it, and neither loses an event nor sees one twice.

There are two ways, and each is short:

- Writing is one ``log()``. No lock is held meanwhile, so threads share one fsync.
- Reading is a :class:`Follower`: the log behind a sequence; where that has left the log, first the snapshot. Opening,
  iterating, compacting, and following from another process are all this one loop.

A checkpoint is taken of what a follower has read, at the sequence that it has come to (``checkpoint_at``). What threads
log in the meantime is behind that sequence, and stays in the log.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Iterator
from operator import itemgetter
from types import TracebackType
from typing import Any, ClassVar, Literal, NamedTuple

from trax.commit import SyncPolicy
from trax.errors import InvalidArgumentError, OvertakenError, StreamError, TraxError, UnreachableError
from trax.layers import LayerStore
from trax.names import LayerName
from trax.storage.local.fs import FileSystem

NAME = LayerName("trax:events")

logger = logging.getLogger("trax")


class Event(NamedTuple):
    """What happened to an object, and where that was logged. Sequences rise; they are not without gaps."""

    sequence: int
    stream: str
    object: Any
    event: Any


class Follower:
    """The events behind a sequence, in order. Iterate; iterate again for what has been logged since.

    ``sequence`` is that of the last event it gave: another follower, in whatever process, goes on from there with
    ``log.follow(after=sequence)``. ``overtaken`` counts how often the log had been truncated beyond that place; what
    was missing was then taken from the snapshot, so that nothing is lost and nothing comes twice. One thread at a time.
    """

    def __init__(self, store: LayerStore, after: int = 0) -> None:
        self._store = store
        self.sequence = after
        self.overtaken = 0

    def __iter__(self) -> Iterator[Event]:
        while True:
            try:
                for sequence, entry in self._store.entries(NAME, after=self.sequence):
                    self.sequence = sequence
                    yield Event(sequence, *entry)
                return
            except OvertakenError as error:
                yield from self._from_snapshot(error)

    def _from_snapshot(self, error: OvertakenError) -> Iterator[Event]:
        try:
            newest = self._store.snapshots()[-1].sequence
            events = self._store.recover(NAME, replay_log=lambda events, entry: events, at=newest)
        except UnreachableError:
            return  # it has been replaced meanwhile: look again
        if self.sequence:
            self.overtaken += 1
            logger.info("a follower of %s goes on from the snapshot: %s", self._store.path, error)
        for event in events:
            if event[0] > self.sequence:
                self.sequence = event[0]
                yield Event(*event)
        self.sequence = max(self.sequence, error.oldest)


class EventLog:
    """A store of events: streams hold events about objects.

    ``path``, ``mode``, ``sync``, ``codec``
        As for :class:`trax.Trax`. ``codec="json"`` makes a log that can be read with the eyes. With ``mode="r"`` it
        reads beside a live writer, and each call sees the newest events.

    A stream is a ``str``. Objects and events are strings, or any value that the codec keeps; two objects are the same
    if the codec writes them the same way, so 1, 1.0 and True are three. The events are also held in memory, by object.

    Any number of threads may use one handle, and write to the same stream.
    """

    _store_class: ClassVar[type[LayerStore]] = LayerStore

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        mode: Literal["a", "r+", "r"] = "a",
        sync: SyncPolicy = "always",
        codec: str | None = None,
        fs: FileSystem | None = None,
    ) -> None:
        self._store = self._store_class(path, mode=mode, sync=sync, codec=codec, fs=fs)
        try:
            self._writable = mode != "r"
            self._streams: dict[str, None] = {}
            self._lock = threading.RLock()
            self._compacting = threading.RLock()
            if self._writable and NAME not in self._store:
                self._begin()
            self._codec = self._store.codec
            self._read_all()
        except BaseException:
            self._store.close()
            raise

    # Writing

    def create_stream(self, stream: str) -> None:
        """Open a stream for writing. One that is open, or that was written to before, goes on."""
        self._store.check_open(writable=True)
        if not isinstance(stream, str):
            text = f"a stream is named by a str, and {stream!r} is of type {type(stream).__name__}."
            raise InvalidArgumentError(text, path=self.path, reason="not a str")
        self._streams[stream] = None

    def release_stream(self, stream: str) -> None:
        """Close a stream. Its events stay; StreamError if it is not open."""
        self._check_stream(stream)
        self._streams.pop(stream, None)

    def write(self, stream: str, object: Any, event: Any) -> int:
        """Log an event; returns its sequence when it is as safe as ``sync`` says.

        Raises StreamError if the stream is not open, and what :meth:`trax.Trax.log` raises; the event is then not in
        the log.
        """
        self._check_stream(stream)
        packed = self._pack(object), self._pack(event)
        try:
            sequence = self._store.log({NAME: [stream, object, event]})
            with self._lock:
                self._remember(sequence, *packed)
        except TraxError:
            raise
        except BaseException:
            self._unsure = True  # an interrupt: the event may be in the log all the same
            raise
        return sequence

    def compact(self) -> None:
        """Checkpoint the events that are in the log by now, so that the log can be truncated.

        Durable when it returns. Opening then reads the snapshot, and what was logged since. Threads may go on writing.
        """
        self._store.check_open(writable=True)
        with self._compacting:
            if next(self._store.entries(NAME), None) is not None:
                events = [list(event) for event in self]
                self._store.checkpoint_at(events[-1][0], {NAME: events})

    # Reading

    def events(self, object: Any) -> list[Any]:
        """The events of an object in the order in which they were logged, in all streams; none: an empty list."""
        self._store.check_open()  # before a lock that, in a forked child, nobody is there to release
        with self._lock:
            found = list(self._read_new().get(self._pack(object), ()))
        return [self._unpack(event) for _, event in found]

    def objects(self) -> list[Any]:
        """The objects that have events, in the order of their first ones."""
        self._store.check_open()
        with self._lock:
            index = self._read_new()
            packed = sorted(index, key=lambda one: index[one][0][0])
        return [self._unpack(one) for one in packed]

    def streams(self) -> list[str]:
        """The streams that this handle has created and not released."""
        self._store.check_open()
        return list(self._streams)

    def __iter__(self) -> Iterator[Event]:
        """All events in order, read from the store."""
        return iter(self.follow())

    def follow(self, after: int = 0) -> Follower:
        """The events behind a sequence, and later those that came since. Made for ``mode="r"`` in another process."""
        self._store.check_open()
        if isinstance(after, bool) or not isinstance(after, int) or after < 0:
            text = f"after is a sequence, 0 for all events, and not {after!r}."
            raise InvalidArgumentError(text, path=self.path, reason="after")
        return Follower(self._store, after)

    # The end

    @property
    def path(self) -> str:
        """The directory of the store, as an absolute path."""
        return self._store.path

    def close(self) -> None:
        """Sync, and let go of the store. A second call does nothing."""
        self._store.close()

    def __enter__(self) -> EventLog:
        self._store.check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__} {self.path!r}>"

    # How it is done

    def _begin(self) -> None:
        """Make the events that a new log begins with durable in one commit, so that it happens once."""
        with self._store.batch() as batch:
            batch.checkpoint({NAME: []})
            for event in self._first_events():
                batch.log({NAME: list(event)})

    def _first_events(self) -> Iterable[tuple[str, Any, Any]]:
        """What a new log begins with: stream, object, event of each."""
        return ()

    def _read_all(self) -> None:
        self._index: dict[str | bytes, list[tuple[int, str | bytes]]] = {}
        self._follower = self.follow()
        self._follow()
        self._unsure = False

    def _read_new(self) -> dict[str | bytes, list[tuple[int, str | bytes]]]:
        self._store.check_open()
        if self._unsure:
            self._read_all()
        elif not self._writable:
            self._follow()
        return self._index

    def _follow(self) -> None:
        index, pack = self._index, self._pack
        for sequence, _, object, event in self._follower:
            index.setdefault(pack(object), []).append((sequence, pack(event)))

    def _remember(self, sequence: int, object: str | bytes, event: str | bytes) -> None:
        if sequence <= self._follower.sequence:
            return  # the follower has already read it
        events = self._index.setdefault(object, [])
        events.append((sequence, event))
        if len(events) > 1 and events[-2][0] > sequence:  # the later event of another thread was here earlier
            events.sort(key=itemgetter(0))

    def _pack(self, value: Any) -> str | bytes:
        """A value as it is held in memory: a string as it is, all else as its encoding, which nobody can change."""
        return value if type(value) is str else self._codec.encode(value, "event")

    def _unpack(self, packed: str | bytes) -> Any:
        return packed if type(packed) is str else self._codec.decode(packed)  # type: ignore[arg-type]

    def _check_stream(self, stream: str) -> None:
        self._store.check_open(writable=True)
        if not isinstance(stream, str) or stream not in self._streams:
            text = f"the stream {stream!r} of {self.path} is not open: it was released, or not created by this handle."
            raise StreamError(text, path=self.path, reason="not open", stream=stream)
