"""The log as it was written: one record after the other, all names together, with a way to go on as it grows.

Nothing here takes the lock or changes anything. Entries stay encoded; whoever wants values brings a codec.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from trax.errors import CorruptionError, MissingFileError
from trax.storage.base import Stored
from trax.storage.local.commit_point import load_snapshot
from trax.storage.local.compaction import Floors
from trax.storage.local.framing import FRAME_HEADER_BYTES
from trax.storage.local.fs import FileSystem
from trax.storage.local.layout import Layout
from trax.storage.local.payload import MalformedPayloadError
from trax.storage.local.refusal import asking
from trax.storage.local.snapshot import Snapshot
from trax.storage.local.view import LocalView, OpenSegment, load_kept, open_segment, segment_frames
from trax.storage.local.walk import Frame, Tail, Walk, judge, malformed


class LogRecord(NamedTuple):
    """What one ``log()`` call added: its sequence, and each name's encoded entry."""

    sequence: int
    entries: Mapping[str, bytes]


class Wanted:
    """Which entries to read: those of some names (None: of all) behind each name's own place in the log."""

    def __init__(self, names: Iterable[str] | None, stored: Mapping[str, Stored], after: int | None = None) -> None:
        """``after`` None: behind each name's cut; otherwise behind that sequence."""
        self.names = None if names is None else frozenset(names)
        self._cuts = {name: one.cut for name, one in stored.items()} if after is None else {}
        self.after = after or 0

    def behind(self, name: str) -> int | None:
        """The sequence behind which entries of ``name`` are wanted; None when none are."""
        if self.names is not None and name not in self.names:
            return None
        return self._cuts.get(name, self.after)


def frame_records(frame: Frame, path: str, wanted: Wanted) -> list[LogRecord]:
    """The records of a frame, with those of their entries that are wanted; records without any are left out."""
    found: dict[int, dict[str, bytes]] = {}
    try:
        for entries in frame.entries(wanted.names):
            behind = wanted.behind(entries.name)
            if behind is None or entries.sequences[-1] <= behind:
                continue
            for sequence, encoding in zip(entries.sequences, entries.encodings(), strict=True):
                if sequence > behind:
                    found.setdefault(sequence, {})[entries.name] = encoding
    except MalformedPayloadError as error:
        raise malformed(error, path, frame.header.first_sequence) from error
    return [LogRecord(sequence, dict(sorted(found[sequence].items()))) for sequence in sorted(found)]


def view_records(view: LocalView, wanted: Wanted) -> Iterator[LogRecord]:
    """The wanted records of one state of a store."""
    for segment in view.segments:
        for frame in view.frames(segment):
            yield from frame_records(frame, segment.path, wanted)


class GrowingSegment:
    """The active segment of a store that another process may be writing to, read from a tail on.

    ``whole`` is how many bytes have been read; ``fault`` says, after :meth:`frames` has ended, what kept it from going
    on to ``end``: a torn tail, or, while a writer is alive, a frame that is still on its way.
    """

    def __init__(self, fs: FileSystem, segment: OpenSegment) -> None:
        self._fs, self.segment = fs, segment
        # Never behind a mark that ends the segment: closing and opening write another one in its place.
        self._tail, self._promised = segment.start, segment.reference.proven
        self.whole = self.end = segment.start.offset
        self.latest_epoch = self.published = 0
        self.fault: str | None = None

    def frames(self) -> Iterator[Frame]:
        """The whole frames from the tail on; CorruptionError for what no crash leaves."""
        segment = self.segment
        start: Tail | None = None
        while True:
            with asking("read", segment.path):
                self.end = self._fs.size(segment.fd)
            walk = Walk(
                self._fs, segment.fd, segment.path, segment.reference.salt, self._tail, self.end, self._promised
            )
            try:
                with asking("read", segment.path):
                    yield from walk
            finally:
                self._tail = walk.before_mark if _ends_with_mark(walk) else walk.tail
                self.whole, self._promised = walk.tail.offset, walk.promised
                self.latest_epoch = max(self.latest_epoch, walk.latest_epoch)
                self.published = max(self.published, walk.published)
            try:
                with asking("read", segment.path):
                    self.fault = judge(walk)
                return
            except CorruptionError:
                # A page that was read before its writer filled it, followed by one read after, looks like damage once.
                if start is not None and walk.tail == start:
                    raise
                start = walk.tail

    def may_have_grown(self) -> bool:
        """Whether there is anything at the tail; cheaper than a walk, which would look at all the room made ahead."""
        with asking("read", self.segment.path):
            return bool(self._fs.pread(self.segment.fd, FRAME_HEADER_BYTES, self.whole).strip(b"\0"))

    def close(self) -> None:
        self._fs.close(self.segment.fd)


def _ends_with_mark(walk: Walk) -> bool:
    return walk.marks > 0 and walk.tail.offset == walk.before_mark.offset + FRAME_HEADER_BYTES


class Follower:
    """The records of a store from the beginning of its log on, and then those that its writer adds.

    ``overtaken(after, until)`` is called when the log was truncated before it could be read: records between these two
    sequences may not have been seen.
    """

    def __init__(
        self, fs: FileSystem, layout: Layout, wanted: Wanted, after: int, overtaken: Callable[[int, int], None]
    ) -> None:
        self._fs, self._layout, self._wanted, self._overtaken = fs, layout, wanted, overtaken
        self._position = after
        self._begun = False
        self._snapshot_fd: int | None = None
        self._active: GrowingSegment | None = None

    def poll(self) -> Iterator[LogRecord]:
        """What is there now and was not yielded before."""
        while True:
            replaced = self._snapshot_was_replaced()
            if self._active is not None and self._active.may_have_grown():
                # Also if the snapshot was replaced: the segment is held open, and what it holds comes before the rest.
                yield from self._pass_on(self._active.segment.path, self._active.frames())
            if not replaced:
                return
            snapshot = self._load()
            try:
                yield from self._catch_up(snapshot)
                return
            except MissingFileError:
                if not self._snapshot_was_replaced():
                    raise

    def close(self) -> None:
        active, self._active = self._active, None
        fd, self._snapshot_fd = self._snapshot_fd, None
        if active is not None:
            active.close()
        if fd is not None:
            self._fs.close(fd)

    def _snapshot_was_replaced(self) -> bool:
        if self._snapshot_fd is None:
            return True
        with asking("look at", self._layout.snapshot):
            # An inode that is held open can't be given to another file.
            return self._fs.identity(self._layout.snapshot) != self._fs.identity_of(self._snapshot_fd)

    def _load(self) -> Snapshot:
        with asking("read", self._layout.snapshot):
            fd = self._fs.open(self._layout.snapshot)
            # Opened before it is read: if it is replaced in between, the next poll finds that out.
            old, self._snapshot_fd = self._snapshot_fd, fd
            if old is not None:
                self._fs.close(old)
            return load_snapshot(self._fs, self._layout.snapshot)

    def _catch_up(self, snapshot: Snapshot) -> Iterator[LogRecord]:
        expect_gap = self._begun and self._missed_segments(snapshot)
        sequence = 0
        for reference in snapshot.segments:
            before, sequence = sequence, reference.sealed.sequence if reference.sealed else sequence
            if reference.sealed and sequence <= self._position:
                continue
            segment = open_segment(self._fs, self._layout, snapshot.store_id, reference, before)
            growing = GrowingSegment(self._fs, segment)
            try:
                frames = segment_frames(self._fs, segment, None) if reference.sealed else growing.frames()
                for frame in frames:
                    if expect_gap and frame.sequences[-1] > self._position:
                        expect_gap = False
                        self._check_gap(snapshot, next(one for one in frame.sequences if one > self._position))
                    yield from self._pass_on(segment.path, [frame])
            except BaseException:
                growing.close()
                raise
            if reference.sealed:
                growing.close()
                continue
            old, self._active = self._active, growing
            if old is not None:
                old.close()
        if expect_gap:
            self._check_gap(snapshot, snapshot.sequence + 1)
        self._begun = True

    def _missed_segments(self, snapshot: Snapshot) -> bool:
        """Whether there were segments behind the one that was read last, and are no more."""
        if self._active is None:
            return True
        named = {reference.number for reference in snapshot.segments}
        return not named.issuperset(range(self._active.segment.reference.number + 1, max(named)))

    def _pass_on(self, path: str, frames: Iterable[Frame]) -> Iterator[LogRecord]:
        for frame in frames:
            for record in frame_records(frame, path, self._wanted):
                if record.sequence > self._position:
                    self._begun = True
                    self._position = record.sequence
                    yield record
            self._position = max(self._position, frame.sequences[-1])

    def _check_gap(self, snapshot: Snapshot, found: int) -> None:
        """Whether what is missing between the last record and the next one may have been records that were wanted."""
        names = {name: one for name, one in snapshot.names.items() if self._wanted.behind(name) is not None}
        gone = max((one.cut for one in names.values()), default=0)
        missing = range(self._position + 1, min(found, gone + 1))
        # Checkpoints take sequences too, and are not in the log.
        checkpoints = {snapshot.sequence, *(one.sequence for one in snapshot.names.values())}
        checkpoints |= {kept.sequence for kept in snapshot.kept}
        if len(missing) > len(checkpoints.intersection(missing)):
            self._overtaken(self._position, missing[-1])
            self._position = max(self._position, missing[-1])


def reachable_floor(fs: FileSystem, layout: Layout, snapshot: Snapshot, wanted: Wanted) -> int:
    """The sequence up to which entries of the wanted names may have left the log."""
    kept = [load_kept(fs, layout, snapshot.store_id, reference).names for reference in snapshot.kept]
    floors = Floors(snapshot.names, kept)
    every = {*snapshot.names, *(name for names in kept for name in names)}
    return max((floors[name] for name in every if wanted.behind(name) is not None), default=0)
