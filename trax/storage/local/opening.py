"""What a writer does before its first record: judge what is there, prove it durable, remove what nobody names.

The order matters. The new epoch is published before the log is scanned: what a writer of an older epoch adds after that
was never acknowledged. What the frames themselves can't prove to be on stable storage is written again into a new
segment and synced before it is relied on: after a failed fsync, or in a process that started after it, the page cache
shows what the disk doesn't have, and another fsync of the same pages proves nothing (PostgreSQL 2018).
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
from trax.storage.local.fs import FileSystem
from trax.storage.local.layout import Layout, file_numbers, segment_numbers
from trax.storage.local.payload import MalformedPayloadError
from trax.storage.local.reader import check_codec
from trax.storage.local.refusal import asking
from trax.storage.local.segment import Manner, SegmentWriter, Summary, create_segment
from trax.storage.local.snapshot import SegmentReference, Snapshot
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
        for generation in file_numbers(fs.listdir(layout.kept)):
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
    """Scans the whole log and ends with a writer at its end; what is not proven durable was written again.

    Afterwards ``sealed`` and ``active`` are the segments that the store consists of, ``summaries`` says what the sealed
    ones hold, and ``changed`` whether the snapshot must be replaced for that to become true.
    """

    def __init__(
        self, fs: FileSystem, layout: Layout, snapshot: Snapshot, manner: Manner, commit_point: CommitPoint
    ) -> None:
        self._fs, self._layout, self._store_id = fs, layout, snapshot.store_id
        self._manner, self._file_mode, self._check_owner = manner, commit_point.mode, commit_point.check_owner
        self._sequence, self._last_segment = snapshot.sequence, snapshot.last_segment
        *self.sealed, self.active = snapshot.segments
        self.summaries: dict[int, Summary] = {}
        self.torn: TornTail | None = None
        self.rewritten_records = 0
        self.changed = False
        with LocalView(fs, layout, snapshot, snapshot, (), None) as view:
            for segment in view.segments[:-1]:
                self.summaries[segment.reference.number] = _summarize(view.frames(segment), segment.path)
            start = view.segments[-1].start
        with asking("open", layout.segment(self.active.number)):
            self.writer = self._open_active(start)

    def _open_active(self, start: Tail) -> SegmentWriter:
        path = self._layout.segment(self.active.number)
        fd = self._fs.open(path, write=True)
        try:
            end = self._fs.size(fd)
            walk = Walk(self._fs, fd, path, self.active.salt, start, end)
            summary = _summarize(walk, path)
            reason = judge(walk)
            if walk.latest_epoch >= self._manner.epoch or walk.published > self._sequence:
                raise _put_back(self._layout.snapshot, path)
            if reason is None and walk.closed:
                writer = self._go_on(fd, walk, start, summary)
                fd = -1
                return writer
            if reason is not None:
                self.torn = TornTail(path, walk.tail.offset, end - walk.tail.offset, reason)
                _report(self.torn)
            return self._rewrite(walk, start)
        finally:
            if fd >= 0:
                self._fs.close(fd)

    def _go_on(self, fd: int, walk: Walk, start: Tail, summary: Summary) -> SegmentWriter:
        """After a clean close: the same segment. In place of its last mark comes one that says that it is in use again.

        That mark is not synced here: whatever is acknowledged behind it is synced together with it.
        """
        writer = SegmentWriter(
            self._fs,
            fd,
            walk.path,
            walk.salt,
            self._manner,
            tail=walk.before_mark,
            synced=walk.before_mark.offset,
            before=start.sequence,
            summary=summary,
        )
        self._check_owner()
        writer.cut_back()
        writer.mark(self._sequence)
        return writer

    def _rewrite(self, walk: Walk, start: Tail) -> SegmentWriter:
        """Seal the active segment where it is proven; what follows goes into a new one, and is synced there."""
        proven = Walk(self._fs, walk.fd, walk.path, walk.salt, start, walk.proven)
        summary = _summarize(proven, walk.path)
        # Beyond the leftovers of a crash too: those are swept only when the log is safe.
        number = 1 + max(self._last_segment, *segment_numbers(self._fs.listdir(self._layout.path)))
        writer = create_segment(
            self._fs,
            self._layout.segment(number),
            self._store_id,
            number,
            mode=self._file_mode,
            manner=self._manner,
            sequence=proven.tail.sequence,
        )
        try:
            for frame in Walk(self._fs, walk.fd, walk.path, walk.salt, proven.tail, walk.tail.offset):
                writer.append_again(frame)
                self.rewritten_records += frame.header.record_count
            writer.sync()  # makes durable: the records that the old segment could not prove
        except BaseException:
            self._fs.close(writer.fd)
            raise
        if proven.tail != start or self.torn is not None:
            self.sealed.append(self.active._replace(sealed=proven.tail))
            self.summaries[self.active.number] = summary
        self.active = SegmentReference(number, writer.salt, None)
        self.changed = True
        return writer


def _summarize(frames: Iterable[Frame], path: str) -> Summary:
    summary = Summary()
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
    """Make those that a tool which copies files only has left out. A publish syncs their names before it needs them."""
    with asking("open", layout.path):
        for directory in (layout.blobs, layout.kept):
            if fs.kind(directory) == "absent":
                fs.mkdir(directory, fs.mode(layout.path))


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
    if exists:
        _restore_empty_directories(fs, layout)
        check_is_latest(fs, layout, old)
    snapshot = replace(old, generation=old.generation + 1, epoch=old.epoch + 1, keep=keep or old.keep)
    commit_point = CommitPoint(fs, layout, snapshot, identity_is_proof=identity_is_proof)
    try:
        commit_point.replace(snapshot)
        manner = Manner(snapshot.epoch, snapshot.codec == "json", preallocate)
        kept = [load_kept(fs, layout, snapshot.store_id, reference) for reference in snapshot.kept]
        log = LogOpening(fs, layout, snapshot, manner, commit_point)
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
                log.writer.mark(snapshot.sequence)
            commit_point.unsettled = False
            commit_point.check_owner()
            sweep(fs, layout, snapshot, {reference.number for reference in blobs_of(snapshot, kept)})
        except BaseException:
            fs.close(log.writer.fd)
            raise
    except BaseException:
        commit_point.close()
        raise
    state = State(snapshot, kept, log.writer, log.summaries)
    return Opened(commit_point, state, manner, log.torn, log.rewritten_records)
