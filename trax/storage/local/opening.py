"""What a writer does before its first record: judge what is there, prove it durable, remove what nobody names.

The order matters. All that is read is judged before anything is changed: a store that is refused stays as it is, byte
for byte, but for the file ``lock``. Then the new epoch is published, and the end of the log looked at once more: what a
writer of an older epoch adds after that was never acknowledged. What the frames themselves can't prove to be on stable
storage is written again into a new segment and synced before it is relied on: after a failed fsync, or in a process
that started after it, the page cache shows what the disk doesn't have, and another fsync of the same pages proves
nothing (PostgreSQL 2018).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from trax.errors import CorruptionError, TornTailWarning
from trax.storage.local.commit_point import CommitPoint, load_snapshot
from trax.storage.local.creation import first_snapshot, survey
from trax.storage.local.framing import SEGMENT_HEADER_BYTES, decode_segment_header
from trax.storage.local.fs import FileSystem, make_directory
from trax.storage.local.layout import Layout, file_numbers, segment_numbers
from trax.storage.local.payload import MalformedPayloadError
from trax.storage.local.reader import check_codec
from trax.storage.local.refusal import asking
from trax.storage.local.segment import Manner, SegmentWriter, Summary, create_segment
from trax.storage.local.snapshot import SegmentReference, Snapshot, check_room
from trax.storage.local.state import State, blobs_of
from trax.storage.local.view import LocalView, load_kept
from trax.storage.local.walk import Frame, Tail, Walk, judge, malformed

logger = logging.getLogger("trax")


class TornTail(NamedTuple):
    """What a crash left behind the last whole frame.

    It is not used, and stays where it is until the log is truncated.
    """

    path: str
    offset: int
    nbytes: int
    reason: str


def check_is_latest(fs: FileSystem, layout: Layout, snapshot: Snapshot) -> None:
    """CorruptionError if a file that the snapshot does not name could only have been written after a later one.

    A crash leaves files that were to be named, and no later snapshot. A segment that has a mark was in use, and the
    snapshot that named it on stable storage; an older snapshot is kept under its generation, before the next is
    written.
    """
    with asking("look at", layout.path):
        named = {reference.number for reference in snapshot.segments}
        for number in segment_numbers(fs.listdir(layout.path)) - named:
            if number > snapshot.segments[-1].number and _was_in_use(fs, layout, snapshot, number):
                raise _put_back(layout.snapshot, layout.segment(number))
        kept = fs.listdir(layout.kept) if fs.kind(layout.kept) == "directory" else []
        for generation in file_numbers(kept):
            if generation > snapshot.generation:
                raise _put_back(layout.snapshot, layout.kept_snapshot(generation))


def _was_in_use(fs: FileSystem, layout: Layout, snapshot: Snapshot, number: int) -> bool:
    path = layout.segment(number)
    fd = fs.open(path)
    try:
        header = decode_segment_header(fs.pread(fd, SEGMENT_HEADER_BYTES, 0))
        if header is None or header.store_id != snapshot.store_id:
            return False
        start = Tail(SEGMENT_HEADER_BYTES, header.checksum, 0)
        walk = Walk(fs, fd, path, header.salt, start, fs.size(fd))
        for _ in walk:
            pass
        return walk.proven > start.offset or walk.marks > 0
    finally:
        fs.close(fd)


def _put_back(path: str, evidence: str) -> CorruptionError:
    text = (
        f"{path} is older than {evidence}, which was written after a later snapshot: an older copy of it was put back, "
        f"or files of two stores were mixed. Nothing was changed. Put all files back from one copy."
    )
    return CorruptionError(text, path=path, reason="the snapshot is older than the files beside it")


class LogOpening:
    """Reads the whole log when it is constructed, and changes nothing: what no crash leaves is an error by then.

    :meth:`take_over`, when the new epoch is published, ends with a writer at the log's end; what is not proven durable
    was written again. Afterwards ``sealed`` and ``active`` are the segments that the store consists of, ``summaries``
    says what the sealed ones hold, and ``changed`` whether the snapshot must be replaced for that to become true.
    """

    def __init__(self, fs: FileSystem, layout: Layout, snapshot: Snapshot) -> None:
        self._fs, self._layout, self._snapshot = fs, layout, snapshot
        *self.sealed, self.active = snapshot.segments
        self.summaries: dict[int, Summary] = {}
        self.torn: TornTail | None = None
        self.rewritten_records = 0
        self.changed = False
        self._summary = Summary()
        self._path = layout.segment(self.active.number)
        with LocalView(fs, layout, snapshot, snapshot, (), None) as view:
            for segment in view.segments[:-1]:
                self.summaries[segment.reference.number] = _summarize(view.frames(segment), segment.path)
            self._start = view.segments[-1].start
        with asking("open", self._path):
            self._fd = fs.open(self._path, write=True)
            try:
                end, proven = fs.size(self._fd), self.active.proven
                self._walk = Walk(fs, self._fd, self._path, self.active.salt, self._start, end, proven)
                self._read_on(snapshot.epoch)
            except BaseException:
                self.close()
                raise
        if self._walk.closed:
            self.active = self.active._replace(proven=_beyond_header(self._walk.before_mark))

    def take_over(self, manner: Manner, commit_point: CommitPoint) -> SegmentWriter:
        """A writer at the end of the log. ``commit_point`` holds the snapshot with the new epoch."""
        with asking("open", self._path):
            walk = self._walk
            walk.look_again(self._fs.size(self._fd))
            reason = self._read_on(manner.epoch - 1)
            if reason is None and walk.closed:
                return self._go_on(manner, commit_point)
            if reason is not None:
                self.torn = TornTail(self._path, walk.tail.offset, walk.end - walk.tail.offset, reason)
                _report(self.torn)
            writer = self._rewrite(manner, commit_point)
            self.close()
            return writer

    def close(self) -> None:
        """Let go of the active segment, if no writer has it."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._fs.close(fd)

    def _read_on(self, epoch: int) -> str | None:
        """Walk to the end; why the log ends before its file does, if so. ``epoch`` is the last that may stand there."""
        walk = self._walk
        _summarize(walk, self._path, self._summary)
        reason = judge(walk)
        if walk.latest_epoch > epoch or walk.published > self._snapshot.sequence:
            raise _put_back(self._layout.snapshot, self._path)
        return reason

    def _go_on(self, manner: Manner, commit_point: CommitPoint) -> SegmentWriter:
        """After a clean close: the same segment. In place of its last mark comes one that says that it is in use again.

        That mark is not synced here: whatever is acknowledged behind it is synced together with it.
        """
        walk = self._walk
        writer = SegmentWriter(
            self._fs,
            self._fd,
            self._path,
            walk.salt,
            manner,
            tail=walk.before_mark,
            synced=walk.before_mark.offset,
            before=self._start.sequence,
            summary=self._summary,
        )
        commit_point.check_owner()
        writer.cut_back()
        writer.mark(self._snapshot.sequence)
        self._fd = -1
        return writer

    def _rewrite(self, manner: Manner, commit_point: CommitPoint) -> SegmentWriter:
        """Seal the active segment where it is proven; what follows goes into a new one, and is synced there."""
        walk = self._walk
        proven = Walk(self._fs, self._fd, self._path, walk.salt, self._start, walk.proven)
        summary = _summarize(proven, self._path)
        # Beyond the leftovers of a crash too: those are swept only when the log is safe.
        number = 1 + max(self._snapshot.last_segment, *segment_numbers(self._fs.listdir(self._layout.path)))
        writer = create_segment(
            self._fs,
            self._layout.segment(number),
            self._snapshot.store_id,
            number,
            mode=commit_point.mode,
            manner=manner,
            sequence=proven.tail.sequence,
        )
        try:
            for frame in Walk(self._fs, self._fd, self._path, walk.salt, proven.tail, walk.tail.offset):
                writer.append_again(frame)
                self.rewritten_records += frame.header.record_count
            writer.sync()  # makes durable: the records that the old segment could not prove
        except BaseException:
            self._fs.close(writer.fd)
            raise
        if proven.tail != self._start or self.torn is not None:
            self.sealed.append(self.active.ending(proven.tail))
            self.summaries[self.active.number] = summary
        self.active = SegmentReference(number, writer.salt, None, writer.proven)
        self.changed = True
        return writer


def _beyond_header(tail: Tail) -> Tail | None:
    return tail if tail.offset > SEGMENT_HEADER_BYTES else None


def _summarize(frames: Iterable[Frame], path: str, summary: Summary | None = None) -> Summary:
    """What the frames hold, in addition to what ``summary`` says."""
    summary = Summary() if summary is None else summary
    for frame in frames:
        try:
            summary.add_frame(frame)
        except MalformedPayloadError as error:
            raise malformed(error, path, frame.header.first_sequence) from error
    return summary


def _report(torn: TornTail) -> None:
    text = (
        f"{torn.path}: the last {torn.nbytes:,} bytes, from byte {torn.offset:,} on, are not whole records "
        f"({torn.reason}): a crash cut them off while they were being written. They were not acknowledged as durable; "
        f"they are not used, and stay where they are until the log is truncated."
    )
    logger.warning(text)
    warnings.warn(TornTailWarning(text), stacklevel=2)


def _restore_empty_directories(fs: FileSystem, layout: Layout) -> None:
    """Make those that a tool which copies files only has left out."""
    with asking("open", layout.path):
        for directory in (layout.blobs, layout.kept):
            if fs.kind(directory) == "absent":
                make_directory(fs, directory, fs.mode(layout.path))


def sweep(fs: FileSystem, layout: Layout, snapshot: Snapshot, blobs: set[int]) -> None:
    """Remove files that bear our names and that no snapshot names: leftovers of calls that a crash ended."""
    with asking("sweep", layout.path):
        for path in _leftovers(fs, layout, snapshot, blobs):
            with suppress(FileNotFoundError):
                fs.unlink(path)


def _leftovers(fs: FileSystem, layout: Layout, snapshot: Snapshot, blobs: set[int]) -> Iterator[str]:
    segments = {reference.number for reference in snapshot.segments}
    kept = {reference.generation for reference in snapshot.kept}
    entries = fs.listdir(layout.path)
    yield from map(layout.segment, segment_numbers(entries) - segments)
    yield from map(layout.blob, file_numbers(fs.listdir(layout.blobs)) - blobs)
    yield from map(layout.kept_snapshot, file_numbers(fs.listdir(layout.kept)) - kept)
    yield from layout.unfinished_snapshots(entries)


class Opened(NamedTuple):
    """A store that was opened for writing."""

    commit_point: CommitPoint
    state: State
    manner: Manner
    torn: TornTail | None
    rewritten_records: int


def open_for_writing(
    fs: FileSystem, layout: Layout, *, codec: str | None, keep: int | None, preallocate: bool, identity_is_proof: bool
) -> Opened:
    """Create the store or load it, claim the next epoch, recover the log, sweep. The lock is held."""
    with asking("read", layout.snapshot):
        exists = survey(fs, layout, create=True)
        old = load_snapshot(fs, layout.snapshot) if exists else first_snapshot(fs, layout, codec or "msgpack")
    check_codec(codec, old.codec, layout.path)
    check_room(old, layout.snapshot)
    check_is_latest(fs, layout, old)
    kept = [load_kept(fs, layout, old.store_id, reference) for reference in old.kept]
    log = LogOpening(fs, layout, old)
    try:
        return _take_over(fs, layout, old, kept, log, keep or old.keep, preallocate, identity_is_proof)
    finally:
        log.close()


def _take_over(
    fs: FileSystem,
    layout: Layout,
    old: Snapshot,
    kept: list[Snapshot],
    log: LogOpening,
    keep: int,
    preallocate: bool,
    identity_is_proof: bool,
) -> Opened:
    """The first changes: nothing that was there before was damaged."""
    _restore_empty_directories(fs, layout)
    segments = (*log.sealed, log.active)
    snapshot = replace(old, generation=old.generation + 1, epoch=old.epoch + 1, keep=keep, segments=segments)
    commit_point = CommitPoint(fs, layout, snapshot, identity_is_proof=identity_is_proof)
    try:
        commit_point.replace(snapshot)
        manner = Manner(snapshot.epoch, snapshot.codec == "json", preallocate)
        writer = log.take_over(manner, commit_point)
        try:
            if log.changed:
                snapshot = replace(
                    snapshot,
                    generation=snapshot.generation + 1,
                    last_segment=log.active.number,
                    segments=(*log.sealed, log.active),
                )
                with asking("open", layout.path):
                    fs.fsync_directory(layout.path)  # makes durable: the new segment's name
                commit_point.replace(snapshot)
                # Not synced, and not needed: it tells that the segment was named, should an older snapshot be put back.
                with suppress(OSError):
                    writer.mark(snapshot.sequence)
            commit_point.unsettled = False
            commit_point.check_owner()
            sweep(fs, layout, snapshot, {reference.number for reference in blobs_of(snapshot, kept)})
        except BaseException:
            fs.close(writer.fd)
            raise
    except BaseException:
        commit_point.close()
        raise
    state = State(snapshot, kept, writer, log.summaries)
    return Opened(commit_point, state, manner, log.torn, log.rewritten_records)
