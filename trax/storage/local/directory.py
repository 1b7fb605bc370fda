"""The directory as a storage: a record comes in at ``append``, is made durable by ``sync``, and comes back by ``view``.

Invariants:

- ``_state`` changes in one assignment, after the new snapshot is on stable storage: a view taken by another thread is of
  the state before or after, never between. If anything interrupts that, the commit point stays unsettled, and the
  storage refuses to append to a segment that may have been sealed.
- A file is removed only when the snapshot that no longer names it is on stable storage.
- From choosing where the active segment ends to the new snapshot nothing is appended; the caller sees to it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from itertools import count
from typing import NamedTuple

from trax.codecs.base import Encoded
from trax.errors import CodecError, InvalidArgumentError
from trax.storage.base import BlobReference, Commit, SnapshotInfo, Stored
from trax.storage.local.blob import write_blob
from trax.storage.local.commit_point import CommitPoint, load_snapshot
from trax.storage.local.compaction import Floors, copy_survivors, needed, worth_copying
from trax.storage.local.fs import FileSystem, LocalFileSystem, write_all
from trax.storage.local.layout import Layout, file_numbers
from trax.storage.local.lock import WriterLock
from trax.storage.local.opening import LogOpening, check_is_latest, make_directories, survey, sweep
from trax.storage.local.refusal import asking
from trax.storage.local.segment import Manner, SegmentWriter, Summary, create_segment
from trax.storage.local.snapshot import KeptReference, SegmentReference, Snapshot, encode_snapshot
from trax.storage.local.view import LocalView, load_kept, snapshot_for, snapshot_infos, view_of_latest

INLINE_BYTES = 4096
"""A value whose encoding is no longer stands in the snapshot; others are blobs."""


class State(NamedTuple):
    """One generation: its snapshot, the older ones it keeps, the active segment, and what the sealed ones hold."""

    snapshot: Snapshot
    kept: list[Snapshot]
    writer: SegmentWriter
    summaries: Mapping[int, Summary]


class LocalStorage:
    """A store that is held for writing. See :class:`trax.storage.base.Storage` for what each call promises."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        must_exist: bool = False,
        codec: str | None = None,
        keep: int | None = None,
        preallocate: bool = True,
        fs: FileSystem | None = None,
    ) -> None:
        self._fs = fs or LocalFileSystem()
        self._layout = Layout(path)
        with asking("look at", self._layout.path):
            exists = survey(self._fs, self._layout, create=not must_exist)
            if not exists:
                make_directories(self._fs, self._layout)
        self._lock = WriterLock(self._fs, self._layout)
        self._segment_fds: list[int] = []
        try:
            self._open(codec, keep, preallocate)
        except BaseException:
            self._release()
            raise

    # The log

    def append(self, first_sequence: int, commits: Iterable[Commit]) -> None:
        writer = self._writer
        self._commit_point.check_settled()
        with asking("append to", writer.path):
            try:
                writer.append(first_sequence, commits)
            except OSError:
                writer.cut_back()
                raise

    def sync(self) -> None:
        with asking("sync", self._writer.path):
            self._writer.sync()
        self._commit_point.check_owner()

    def mark(self) -> None:
        with asking("sync", self._writer.path):
            if not self._writer.ends_with_mark:
                self._writer.mark(self._state.snapshot.sequence)
                self._writer.sync()  # makes durable: the mark, which proves the records before it

    @property
    def sequence(self) -> int:
        return max(self._state.snapshot.sequence, self._writer.tail.sequence)

    @property
    def appended(self) -> int:
        """The last sequence in the log; what is appended again up to there has arrived before."""
        return self._writer.tail.sequence

    # The snapshot

    @property
    def names(self) -> Mapping[str, Stored]:
        return self._commit_point.snapshot.names

    @property
    def codec(self) -> str:
        return self._commit_point.snapshot.codec

    @property
    def keep(self) -> int:
        return self._commit_point.snapshot.keep

    @property
    def epoch(self) -> int:
        return self._commit_point.snapshot.epoch

    def write_value(self, encoded: Encoded) -> bytes | BlobReference:
        if not encoded.buffers and len(encoded.head) <= INLINE_BYTES:
            return encoded.head
        number = next(self._blob_numbers)
        path = self._layout.blob(number)
        with asking("write", path):
            fd = self._fs.create(path, self._commit_point.mode)
            try:
                reference = write_blob(self._fs, fd, self._commit_point.snapshot.store_id, number, encoded)
                # Makes durable: the blob's name, before a snapshot names it.
                self._fs.fsync_directory(self._layout.blobs)
            except BaseException:
                self._remove(path)
                raise
            finally:
                self._fs.close(fd)
        return reference

    def discard(self, values: Iterable[BlobReference]) -> None:
        snapshot, kept, _, _ = self._state
        named = _blobs(snapshot, kept)
        for reference in values:
            if reference not in named and not self._commit_point.unsettled:
                self._remove(self._layout.blob(reference.number))

    def publish(self, names: Mapping[str, Stored], sequence: int, ahead: Sequence[tuple[int, Commit]] = ()) -> None:
        self._commit_point.check_settled()
        old, _, writer, _ = self._state
        if not writer.empty and writer.synced != writer.tail.offset:
            with asking("sync", writer.path):
                writer.sync()  # makes durable: the mark behind the last records, or the segment could not be sealed there
        kept = self._kept_after(old)
        sealed, summaries = self._sealed()
        segments = needed(sealed, summaries, Floors(names, (one.names for _, one in kept)))
        with self._new_segment(wanted=bool(ahead) or not writer.empty) as (active, new_writer):
            if ahead:
                self._write_ahead(new_writer, ahead)
            if kept and kept[-1][1] is old:
                self._write_kept(old)
            snapshot = replace(
                old,
                generation=old.generation + 1,
                sequence=max(sequence, old.sequence),
                created=time.time(),
                segments=(*segments, active),
                kept=tuple(reference for reference, _ in kept),
                names=_without_dead_markers(names, [summaries[one.number] for one in segments] + [new_writer.summary]),
            )
            self._replace(State(snapshot, [one for _, one in kept], new_writer, summaries))
        if new_writer.synced == new_writer.tail.offset:
            with suppress(OSError):  # not synced, and not needed: it helps to find that an older snapshot was put back
                new_writer.mark(snapshot.sequence)

    def compact(self, quiet: AbstractContextManager[None]) -> None:
        self._commit_point.check_settled()
        old, kept, writer, summaries = self._state
        floors = Floors(old.names, (one.names for one in kept))
        run = worth_copying(old.segments[:-1], summaries, floors)
        if not run:
            return
        rest = old.segments[: -len(run) - 1]
        before = rest[-1].sealed.sequence if rest and rest[-1].sealed else 0
        with self._new_segment(wanted=True, before=before) as (reference, copy):
            with asking("copy the log to", copy.path), LocalView(self._fs, self._layout, old, old, (), 0) as view:
                for segment in view.segments[:-1]:
                    if segment.reference in run:
                        copy_survivors(view.frames(segment), floors, copy)
                copy.sync()  # makes durable: the survivors, before the snapshot names them instead of the originals
            survivors = () if copy.empty else (reference._replace(sealed=copy.tail),)
            segments = (*rest, *survivors, old.segments[-1])
            snapshot = replace(old, generation=old.generation + 1, segments=segments)
            with quiet:
                self._replace(State(snapshot, kept, writer, {**summaries, reference.number: copy.summary}))
        self._close_segment(copy.fd)
        if not survivors:
            self._remove(copy.path)

    # Reading

    def view(self, names: Collection[str] = (), at: int | None = None) -> LocalView:
        def state() -> tuple[Snapshot, int]:
            now = self._state
            return now.snapshot, now.writer.tail.offset

        def make(snapshot: Snapshot, end: int) -> LocalView:
            values = snapshot_for(self._fs, self._layout, snapshot, at)
            return LocalView(self._fs, self._layout, snapshot, values, names, end)

        return view_of_latest(state, make)

    def snapshots(self) -> list[SnapshotInfo]:
        return snapshot_infos(self._fs, self._layout, self._commit_point.snapshot)

    def stats(self) -> dict[str, object]:
        snapshot, _, writer, _ = self._state
        torn = self._torn
        return _figures(self._layout, snapshot, writer.tail.offset) | {
            "torn_bytes": torn.nbytes if torn else 0,
            "torn_file": torn.path if torn else None,
            "torn_offset": torn.offset if torn else None,
            "rewritten_records": self._rewritten_records,
            "lock": "flock" if self._lock.real else "owner file",
        }

    def copy_to(self, path: str | os.PathLike[str]) -> None:
        """Copy the store as it is to a directory that does not exist or is empty. Nothing is published meanwhile."""
        target = Layout(path)
        snapshot, every_kept, writer, _ = self._state
        end = writer.tail.offset
        with asking("copy to", target.path):
            if survey(self._fs, target, create=True):
                text = f"{target.path} holds a store already. Copy to a directory that is new or empty."
                raise InvalidArgumentError(text, path=target.path, reason="a store is there already")
            make_directories(self._fs, target)
            for reference in _blobs(snapshot, every_kept):
                self._copy(self._layout.blob(reference.number), target.blob(reference.number))
            for kept in snapshot.kept:
                self._copy(self._layout.kept_snapshot(kept.generation), target.kept_snapshot(kept.generation))
            for segment in snapshot.segments:
                number = segment.number
                self._copy(self._layout.segment(number), target.segment(number), None if segment.sealed else end)
            for directory in (target.blobs, target.kept, target.path):
                self._fs.fsync_directory(directory)  # makes durable: the names of what the snapshot will name
            copy = CommitPoint(self._fs, target, snapshot, identity_is_proof=True)
            copy.replace(snapshot)
            copy.close()

    # The end

    def close(self) -> None:
        """Let go of the store. What was not synced before is not synced now."""
        try:
            with suppress(OSError):  # room that was never used; the next writer cuts it off
                self._writer.cut_back()
        finally:
            self._release()

    def abandon(self) -> None:
        """In a forked child: drop every descriptor, and leave the lock to the parent."""
        self._lock.abandon()
        self._release()

    # Opening

    def _open(self, codec: str | None, keep: int | None, preallocate: bool) -> None:
        path = self._layout.snapshot
        # Asked again, now that nobody else can be creating it.
        with asking("read", path):
            exists = survey(self._fs, self._layout, create=True)
            snapshot = load_snapshot(self._fs, path) if exists else self._first(codec or "msgpack")
        check_codec(codec, snapshot.codec, self._layout.path)
        snapshot = replace(
            snapshot, generation=snapshot.generation + 1, epoch=snapshot.epoch + 1, keep=keep or snapshot.keep
        )
        self._commit_point = CommitPoint(self._fs, self._layout, snapshot, identity_is_proof=self._lock.real)
        if not exists:
            snapshot = self._with_first_segment(snapshot, Manner(1, snapshot.codec == "json", preallocate))
        else:
            check_is_latest(self._fs, self._layout, snapshot)
        self._commit_point.replace(snapshot)
        self._manner = Manner(snapshot.epoch, snapshot.codec == "json", preallocate)
        kept = [load_kept(self._fs, self._layout, snapshot.store_id, reference) for reference in snapshot.kept]
        log = LogOpening(self._fs, self._layout, snapshot, self._manner, self._commit_point.mode)
        self._segment_fds.append(log.writer.fd)
        if log.changed:
            segments = (*log.sealed, log.active)
            snapshot = replace(snapshot, generation=snapshot.generation + 1, segments=segments)
            with asking("open", self._layout.path):
                self._fs.fsync_directory(self._layout.path)  # makes durable: the new segment's name
            self._commit_point.replace(snapshot)
        self._state = State(snapshot, kept, log.writer, log.summaries)
        self._commit_point.unsettled = False
        self._torn, self._rewritten_records = log.torn, log.rewritten_records
        self._prepare_numbers(snapshot, kept)

    def _first(self, codec: str) -> Snapshot:
        return Snapshot(store_id=os.urandom(16), codec=codec, keep=1, created=time.time())

    def _with_first_segment(self, snapshot: Snapshot, manner: Manner) -> Snapshot:
        path = self._layout.segment(1)
        with asking("create", path):
            with suppress(FileNotFoundError):
                self._fs.unlink(path)  # an empty one, left by a crash inside the creation
            writer = create_segment(self._fs, path, snapshot.store_id, 1, mode=None, manner=manner, sequence=0)
            self._fs.close(writer.fd)
            self._fs.fsync_directory(self._layout.path)  # makes durable: the segment's name
        return replace(snapshot, segments=(SegmentReference(1, writer.salt, None),))

    def _prepare_numbers(self, snapshot: Snapshot, kept: list[Snapshot]) -> None:
        blobs = {reference.number for reference in _blobs(snapshot, kept)}
        with asking("list", self._layout.path):
            present = file_numbers(self._fs.listdir(self._layout.blobs))
            sweep(self._fs, self._layout, snapshot, blobs)
        self._blob_numbers = count(max(blobs | present, default=0) + 1)
        self._next_segment = max(_numbers(snapshot))  # copied survivors come before the active

    # Publishing

    @property
    def _writer(self) -> SegmentWriter:
        return self._state.writer

    def _kept_after(self, old: Snapshot) -> list[tuple[KeptReference, Snapshot]]:
        """The snapshots that stay beside the next one, oldest first; the last of them may be the present one."""
        every = [*zip(old.kept, self._state.kept, strict=True)]
        if old.sequence > 0:
            every.append((KeptReference(old.generation, old.sequence, old.created), old))
        return every[len(every) - old.keep + 1 :] if old.keep > 1 else []

    def _sealed(self) -> tuple[list[SegmentReference], dict[int, Summary]]:
        """The sealed segments once the active one has been sealed too, unless it is empty."""
        snapshot, _, writer, summaries = self._state
        *sealed, active = snapshot.segments
        if writer.empty:
            return sealed, dict(summaries)
        return [*sealed, active._replace(sealed=writer.tail)], {**summaries, active.number: writer.summary}

    @contextmanager
    def _new_segment(
        self, *, wanted: bool, before: int | None = None
    ) -> Iterator[tuple[SegmentReference, SegmentWriter]]:
        """A new segment for the block, removed again if the block fails and the store is still in its old state."""
        snapshot, _, writer, _ = self._state
        if not wanted:
            yield snapshot.segments[-1], writer
            return
        self._next_segment += 1
        number = self._next_segment
        path = self._layout.segment(number)
        with asking("create", path):
            new = create_segment(
                self._fs,
                path,
                snapshot.store_id,
                number,
                mode=self._commit_point.mode,
                manner=self._manner,
                sequence=writer.tail.sequence if before is None else before,
            )
        self._segment_fds.append(new.fd)
        try:
            yield SegmentReference(number, new.salt, None), new
        except BaseException:
            # Not if it is, or may be, named: what went wrong may have come after the commit.
            if not self._commit_point.unsettled and number not in _numbers(self._state.snapshot):
                self._close_segment(new.fd)
                self._remove(path)
            raise

    def _write_ahead(self, writer: SegmentWriter, ahead: Sequence[tuple[int, Commit]]) -> None:
        with asking("append to", writer.path):
            for first_sequence, commit in ahead:
                writer.append(first_sequence, [commit])
            writer.sync()  # makes durable: what becomes part of the log with the snapshot that names its segment

    def _write_kept(self, snapshot: Snapshot) -> None:
        path = self._layout.kept_snapshot(snapshot.generation)
        with asking("write", path):
            with suppress(FileNotFoundError):
                self._fs.unlink(path)  # left by a call that failed
            fd = self._fs.create(path, self._commit_point.mode)
            try:
                write_all(self._fs, fd, encode_snapshot(snapshot), 0)
                self._fs.fsync(fd)  # makes durable: the older snapshot under its own name
            finally:
                self._fs.close(fd)
            self._fs.fsync_directory(self._layout.kept)  # makes durable: that name, before a snapshot names it

    def _replace(self, new: State) -> None:
        """The commit; afterwards, what only the old state named is removed."""
        old = self._state
        numbers = _numbers(new.snapshot)
        summaries = {number: summary for number, summary in new.summaries.items() if number in numbers}
        with asking("publish in", self._layout.path):
            # Makes durable: the names of new segments, before the snapshot that names them.
            self._fs.fsync_directory(self._layout.path)
        self._commit_point.replace(new.snapshot)
        self._state = new._replace(summaries=summaries)
        self._commit_point.unsettled = False
        if new.writer is not old.writer:
            with suppress(OSError):  # the room that it never used; what lies behind a sealed length is not read
                old.writer.cut_back()
            self._close_segment(old.writer.fd)
        for path in self._no_longer_named(old, new):
            self._remove(path)

    def _no_longer_named(self, old: State, new: State) -> Iterator[str]:
        before, after = old.snapshot, new.snapshot
        for segment in _numbers(before) - _numbers(after):
            yield self._layout.segment(segment)
        for blob in _blobs(before, old.kept) - _blobs(after, new.kept):
            yield self._layout.blob(blob.number)
        for kept in {one.generation for one in before.kept} - {one.generation for one in after.kept}:
            yield self._layout.kept_snapshot(kept)

    def _remove(self, path: str) -> None:
        # A file that stays costs space until the next opening sweeps it; nothing names it.
        with suppress(OSError):
            self._fs.unlink(path)

    def _close_segment(self, fd: int) -> None:
        self._segment_fds.remove(fd)
        self._fs.close(fd)

    def _copy(self, source: str, target: str, nbytes: int | None = None) -> None:
        fd = self._fs.open(source)
        try:
            end = self._fs.size(fd) if nbytes is None else nbytes
            copy = self._fs.create(target, self._commit_point.mode)
            try:
                for offset in range(0, end, 1 << 20):
                    write_all(self._fs, copy, self._fs.pread(fd, min(1 << 20, end - offset), offset), offset)
                self._fs.fsync(copy)  # makes durable: the copy's contents
            finally:
                self._fs.close(copy)
        finally:
            self._fs.close(fd)

    def _release(self) -> None:
        while self._segment_fds:
            self._fs.close(self._segment_fds.pop())
        commit_point: CommitPoint | None = getattr(self, "_commit_point", None)
        if commit_point is not None:
            commit_point.close()
        self._lock.release()


class LocalReader:
    """A store that is read beside its writer: no lock, no repair, no change. Every view is of the newest state."""

    def __init__(self, path: str | os.PathLike[str], *, codec: str | None = None, fs: FileSystem | None = None) -> None:
        self._fs = fs or LocalFileSystem()
        self._layout = Layout(path)
        with asking("look at", self._layout.path):
            survey(self._fs, self._layout, create=False)
        self.codec = self._load().codec
        check_codec(codec, self.codec, self._layout.path)

    @property
    def names(self) -> Mapping[str, Stored]:
        return self._load().names

    def view(self, names: Collection[str] = (), at: int | None = None) -> LocalView:
        def make(snapshot: Snapshot, end: int) -> LocalView:
            values = snapshot_for(self._fs, self._layout, snapshot, at)
            return LocalView(self._fs, self._layout, snapshot, values, names, None)

        return view_of_latest(lambda: (self._load(), 0), make)

    def snapshots(self) -> list[SnapshotInfo]:
        return snapshot_infos(self._fs, self._layout, self._load())

    def stats(self) -> dict[str, object]:
        with self.view() as view:
            active = view.segments[-1]
            return _figures(self._layout, self._load(), self._fs.size(active.fd))

    def _load(self) -> Snapshot:
        with asking("read", self._layout.snapshot):
            return load_snapshot(self._fs, self._layout.snapshot)


def _figures(layout: Layout, snapshot: Snapshot, active_bytes: int) -> dict[str, object]:
    sealed = [one.sealed.offset for one in snapshot.segments if one.sealed is not None]
    return {
        "path": layout.path,
        "store_id": snapshot.store_id.hex(),
        "codec": snapshot.codec,
        "keep": snapshot.keep,
        "generation": snapshot.generation,
        "epoch": snapshot.epoch,
        "checkpoint_sequence": snapshot.sequence,
        "segments": len(snapshot.segments),
        "log_bytes": sum(sealed) + active_bytes,
        "blobs": len(snapshot.blobs()),
        "blob_bytes": sum(reference.nbytes for reference in snapshot.blobs()),
        "kept_snapshots": len(snapshot.kept),
    }


def check_codec(asked: str | None, stored: str, path: str) -> None:
    """CodecError when the store's codec is another than the one asked for, or must be asked for by name."""
    if asked is not None and asked != stored:
        text = (
            f"{path} was created with codec={stored!r}, and {asked!r} was asked for. Leave codec out, or name its own."
        )
        raise CodecError(text, path=path, reason="another codec")
    if stored == "pickle" and asked is None:
        text = (
            f"{path} holds pickles, and unpickling runs whatever code its files contain. If you trust everyone who could "
            f"write to it, open it with codec='pickle'."
        )
        raise CodecError(text, path=path, reason="pickle must be asked for")


def _blobs(snapshot: Snapshot, kept: Iterable[Snapshot]) -> set[BlobReference]:
    return snapshot.blobs().union(*(one.blobs() for one in kept))


def _numbers(snapshot: Snapshot) -> set[int]:
    return {segment.number for segment in snapshot.segments}


def _without_dead_markers(names: Mapping[str, Stored], summaries: Sequence[Summary]) -> dict[str, Stored]:
    """A deleted name stays on as a marker only while the log still holds entries that it must hide."""
    return {
        name: stored
        for name, stored in names.items()
        if stored.value is not None or any(name in summary.last_sequence for summary in summaries)
    }
