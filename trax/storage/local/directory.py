"""The directory as a storage: a record comes in at ``append``, is made durable by ``sync``, and comes back by ``view``.

Invariants:

- ``_state`` changes in one assignment, after the new snapshot is on stable storage: a view taken by another thread is
  of the state before or after, never between. If anything interrupts that, the commit point stays unsettled, and the
  storage refuses to append to a segment that may have been sealed.
- A file is removed only when the snapshot that no longer names it is on stable storage.
- From choosing where the active segment ends to the new snapshot nothing is appended; the caller sees to it.
"""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from trax.codecs.base import Encoded
from trax.errors import ClosedError, FinishedError, TraxError
from trax.storage.base import BlobReference, Commit, SnapshotInfo, Stored
from trax.storage.local.blob import Unchanged, write_blob
from trax.storage.local.blob_reader import BlobReader
from trax.storage.local.compaction import Floors, copy_survivors, needed, worth_copying
from trax.storage.local.copying import copy_store
from trax.storage.local.creation import make_directories, survey
from trax.storage.local.differential import unchanged
from trax.storage.local.fs import FileSystem, default_file_system, wait_for_removals, write_file
from trax.storage.local.layout import Layout
from trax.storage.local.lock import WriterLock
from trax.storage.local.opening import open_for_writing
from trax.storage.local.reader import figures
from trax.storage.local.refusal import asking
from trax.storage.local.segment import SegmentWriter, create_segment
from trax.storage.local.snapshot import SegmentReference, Snapshot, encode_snapshot
from trax.storage.local.state import State, blobs_of, no_longer_named, segment_numbers_of, without_dead_markers
from trax.storage.local.view import LocalView, of_latest, open_blob, snapshot_for, snapshot_infos

INLINE_BYTES = 4096
"""A value whose encoding is no longer stands in the snapshot; others are blobs."""


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
        beside: re.Pattern[str] | None = None,
        differential: bool = False,
        fs: FileSystem | None = None,
    ) -> None:
        self._fs = fs or default_file_system()
        self._layout = Layout(path, beside)
        with asking("look at", self._layout.path):
            exists = survey(self._fs, self._layout, create=not must_exist)
            if not exists:
                make_directories(self._fs, self._layout)
        self._lock = WriterLock(self._fs, self._layout)
        try:
            opened = open_for_writing(
                self._fs,
                self._layout,
                codec=codec,
                keep=keep,
                preallocate=preallocate,
                identity_is_proof=self._lock.real,
            )
            self._commit_point, self._state, self._manner, self._torn, self._rewritten_records = opened
            self._segment_fds = [self._state.writer.fd]
            self._last_blob = self._state.snapshot.last_blob
            self._last_segment = self._state.snapshot.last_segment
            self._differential = differential
            self._unnamed: list[str] = []
            self._leant_on: dict[int, Collection[BlobReference]] = {}
            self._last_foreign_blob = self._last_blob
            self._on_disk: dict[int, bool] = {}
            self._numbering = threading.Lock()
            self._syncing_blobs = threading.Lock()
            self._failed_syncs_of_blobs = 0
            self._closed = False
        except BaseException:
            self._lock.release()
            raise

    # The log

    def check(self) -> None:
        self._check_open()

    def append(self, first_sequence: int, commits: Sequence[Commit]) -> None:
        if self._closed or self._commit_point.unsettled:
            self._check_open()
        writer = self._state.writer
        try:
            writer.append(first_sequence, commits)
        except FinishedError:
            raise
        except OSError as error:
            with asking("append to", writer.path):
                self._take_back(writer, error)
                raise

    def _take_back(self, writer: SegmentWriter, error: OSError) -> None:
        """Remove what a failed write has left: whole records among it would be found by the next opening."""
        try:
            writer.cut_back()
        except OSError as failure:
            text = (
                f"could not append to {writer.path} ({error}), nor take back what was written of it ({failure}). Open "
                f"the store again to see what became of it."
            )
            raise FinishedError(text, path=writer.path, reason=str(failure)) from error

    def sync(self) -> None:
        self._check_open()
        with asking("sync", self._writer.path):
            self._writer.sync()
        self._commit_point.check_owner()

    def mark(self) -> None:
        self._check_open()
        with asking("sync", self._writer.path):
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
        return self._state.snapshot.names

    @property
    def codec(self) -> str:
        return self._commit_point.snapshot.codec

    @property
    def keep(self) -> int:
        return self._commit_point.snapshot.keep

    @property
    def epoch(self) -> int:
        return self._commit_point.snapshot.epoch

    def write_value(self, name: str, encoded: Encoded) -> bytes | BlobReference:
        if not encoded.buffers and len(encoded.head) <= INLINE_BYTES:
            return encoded.head
        self._check_not_closed()  # another thread may be in the middle of a commit, which settles nothing here
        with self._numbering:
            self._last_blob += 1
            number = self._last_blob
        failed_before = self._failed_syncs_of_blobs
        path = self._layout.blob(number)
        try:
            known = self._unchanged(name, number, encoded) if self._differential and encoded.buffers else None
            with asking("write", path):
                fd = self._fs.create(path, self._commit_point.mode)
                try:
                    reference = write_blob(self._fs, fd, self._commit_point.snapshot.store_id, number, encoded, known)
                    self._sync_blobs(failed_before)
                except BaseException:
                    self._remove(path)
                    raise
                finally:
                    self._fs.close(fd)
        except BaseException:
            with self._numbering:
                self._leant_on.pop(number, None)
            raise
        return reference

    def _unchanged(self, name: str, number: int, encoded: Encoded) -> Unchanged | None:
        """What blob ``number`` need not hold again of a value, because files of the last one do."""
        with self._numbering:
            stored = self._state.snapshot.names.get(name)
            if stored is None or not isinstance(stored.value, BlobReference):
                return None
            self._leant_on[number] = stored.value.files
        try:
            with open_blob(self._fs, self._layout, self._commit_point.snapshot.store_id, stored.value) as reader:
                known = unchanged(reader, encoded)
                return known if known is None or self._are_on_disk(reader, known.bases) else None
        except TraxError:
            return None  # what can't be read is not leant on: the value is written whole, and so is healed

    def _are_on_disk(self, reader: BlobReader, bases: Iterable[BlobReference]) -> bool:
        """Sync what this handle has not: the store may be a copy that only the page cache has.

        A file whose sync has failed once is never leant on, since the next sync may succeed without having brought it.
        """
        foreign = [base for base in bases if base.number <= self._last_foreign_blob]
        for base in foreign:
            if base.number not in self._on_disk:
                self._on_disk[base.number] = False
                reader.sync(base)
                self._on_disk[base.number] = True
        return all(self._on_disk[base.number] for base in foreign)

    def _sync_blobs(self, failed_before: int) -> None:
        """Make the name of a blob durable that was created when so many of these syncs had failed."""
        with self._syncing_blobs:
            try:
                self._fs.fsync_directory(self._layout.blobs)  # makes durable: its name, before a snapshot names it
            except OSError:
                self._failed_syncs_of_blobs += 1
                raise
            if self._failed_syncs_of_blobs != failed_before:
                # Another thread's sync failed, and may have lost this name: then this one has succeeded without it.
                raise OSError(errno.EIO, os.strerror(errno.EIO))

    def discard(self, values: Iterable[BlobReference]) -> None:
        with self._numbering:
            for reference in values:
                self._leant_on.pop(reference.number, None)
                self._unnamed.append(self._layout.blob(reference.number))
        if not self._closed and not self._commit_point.unsettled:
            self._remove_unnamed()

    def publish(self, changes: Mapping[str, Stored], sequence: int, ahead: Sequence[tuple[int, Commit]] = ()) -> None:
        self._check_open()
        old, _, writer, _ = self._state
        if not writer.empty and writer.synced != writer.tail.offset:
            self._sync_before_sealing(writer)
        kept = self._state.kept_beside_the_next()
        sealed, summaries = self._state.sealed()
        floors = Floors({**old.names, **changes}, (one.names for _, one in kept))
        segments = needed(sealed, summaries, floors)
        with self._new_segment(wanted=bool(ahead) or not writer.empty) as (active, new_writer):
            if ahead:
                self._write_ahead(new_writer, ahead)
            if kept and kept[-1][1] is old:
                self._write_kept(old)
            snapshot = old.changed(
                without_dead_markers(old, changes, [summaries[one.number] for one in segments] + [new_writer.summary]),
                generation=old.generation + 1,
                sequence=max(sequence, old.sequence),
                created=time.time(),
                last_segment=self._last_segment,
                last_blob=self._last_blob,
                segments=(*segments, active._replace(proven=new_writer.proven)),
                kept=tuple(reference for reference, _ in kept),
            )
            self._replace(State(snapshot, [one for _, one in kept], new_writer, summaries))
        with suppress(OSError):  # not synced, and not needed: it helps to find that an older snapshot was put back
            new_writer.mark(snapshot.sequence)

    def compact(self, quietly: Callable[[Callable[[], None]], None]) -> None:
        self._check_open()
        self._remove_unnamed()
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
            survivors = () if copy.empty else (reference.ending(copy.tail),)
            segments = (*rest, *survivors, old.segments[-1])
            snapshot = old.changed(
                {}, generation=old.generation + 1, last_segment=self._last_segment, segments=segments
            )
            state = State(snapshot, kept, writer, {**summaries, reference.number: copy.summary})
            quietly(lambda: self._replace(state))
        self._close_segment(copy.fd)
        self._remove_unnamed()
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

        return of_latest(state, make)

    def lowest_cut(self, name: str) -> int:
        snapshot, kept, _, _ = self._state
        return Floors(snapshot.names, (one.names for one in kept))[name]

    def snapshots(self) -> list[SnapshotInfo]:
        return snapshot_infos(self._fs, self._layout, self._state.snapshot)

    def stats(self) -> dict[str, object]:
        snapshot, _, writer, _ = self._state
        torn = self._torn
        return figures(self._layout, snapshot, writer.tail.offset) | {
            "torn_bytes": torn.nbytes if torn else 0,
            "torn_file": torn.path if torn else None,
            "torn_offset": torn.offset if torn else None,
            "rewritten_records": self._rewritten_records,
            "lock": "flock" if self._lock.real else "owner file",
        }

    def copy_to(self, path: str | os.PathLike[str]) -> None:
        """Copy the store as it is to a directory that does not exist or is empty. Nothing is published meanwhile."""
        copy_store(self._fs, self._layout, Layout(path), self._state, self._commit_point.mode)

    # The end

    def close(self) -> None:
        """Let go of the store. What was not synced before is not synced now."""
        try:
            # A file that another writer may be using is not touched.
            if not self._closed and not self._commit_point.unsettled and self._commit_point.is_ours():
                self._let_go()
        finally:
            self._release()

    def _let_go(self) -> None:
        writer = self._writer
        if writer.sync_failed:
            return
        with asking("close", writer.path):
            writer.cut_back()
            if writer.provable:
                writer.mark(self._state.snapshot.sequence, closing=True)
            writer.sync()  # makes durable: the mark, which lets the next writer go on in this segment

    def abandon(self) -> None:
        """In a forked child: drop every descriptor, and leave the lock to the parent."""
        self._lock.abandon()
        self._release()

    # Publishing

    @property
    def _writer(self) -> SegmentWriter:
        return self._state.writer

    @contextmanager
    def _new_segment(
        self, *, wanted: bool, before: int | None = None
    ) -> Iterator[tuple[SegmentReference, SegmentWriter]]:
        """A new segment for the block, removed again if the block fails and the store is still in its old state."""
        snapshot, _, writer, _ = self._state
        if not wanted:
            yield snapshot.segments[-1], writer
            return
        self._last_segment += 1
        number = self._last_segment
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
            if not self._commit_point.unsettled and number not in segment_numbers_of(self._state.snapshot):
                self._close_segment(new.fd)
                self._remove(path)
            raise

    def _sync_before_sealing(self, writer: SegmentWriter) -> None:
        try:
            with asking("sync", writer.path):
                writer.sync()  # makes durable: the mark behind the last records, where the segment is to be sealed
        except TraxError as error:
            # What a failed fsync has lost the next one would not bring back, and would not miss either.
            text = f"{error.message} This handle does nothing more: open the store again."
            raise FinishedError(text, path=writer.path, reason=error.reason) from error

    def _write_ahead(self, writer: SegmentWriter, ahead: Sequence[tuple[int, Commit]]) -> None:
        with asking("append to", writer.path):
            for first_sequence, commit in ahead:
                writer.append(first_sequence, [commit])
            writer.sync()  # makes durable: what becomes part of the log with the snapshot that names its segment

    def _write_kept(self, snapshot: Snapshot) -> None:
        path = self._layout.kept_snapshot(snapshot.generation)
        with asking("write", path):
            self._fs.close(write_file(self._fs, path, encode_snapshot(snapshot), self._commit_point.mode))
            self._fs.fsync_directory(self._layout.kept)  # makes durable: that name, before a snapshot names it

    def _replace(self, new: State) -> None:
        """The commit; what only the old state named can be removed when it is done."""
        old = self._state
        with asking("publish in", self._layout.path):
            # Makes durable: the names of new segments, before the snapshot that names them.
            self._fs.fsync_directory(self._layout.path)
        self._commit_point.replace(new.snapshot)
        self._state = new.without_forgotten_summaries()
        self._commit_point.unsettled = False
        old.snapshot.forget()
        if new.writer is not old.writer:
            with suppress(OSError):  # the room that it never used; what lies behind a sealed length is not read
                old.writer.cut_back()
            self._close_segment(old.writer.fd)
        with self._numbering:
            self._unnamed += no_longer_named(self._layout, old, new)

    def _remove_unnamed(self) -> None:
        """Remove what no snapshot names any more; not in the publish itself, since for large files it takes a while.

        What a value that is on its way leans on stays: it may have been named again since, or be named soon. A value
        takes hold of files that are named, and lets go of them when it is published or given up: what is neither named
        nor held, both looked at in one step, never will be.
        """
        if not self._unnamed:
            return
        with self._numbering:
            snapshot, kept, _, _ = self._state
            named = {self._layout.blob(file.number) for file in blobs_of(snapshot, kept)}
            leant_on = {self._layout.blob(file.number) for files in self._leant_on.values() for file in files}
            unnamed = [path for path in self._unnamed if path not in named]
            self._unnamed = [path for path in unnamed if path in leant_on]
        for path in unnamed:
            if path not in leant_on:
                self._remove(path)

    def _remove(self, path: str) -> None:
        # A file that stays costs space until the next opening sweeps it; nothing names it. One that another writer may
        # have given the same number is not ours to remove.
        with suppress(OSError):
            if not self._closed and self._commit_point.is_ours():
                self._fs.unlink(path)

    def _check_open(self) -> None:
        self._check_not_closed()
        self._commit_point.check_settled()

    def _check_not_closed(self) -> None:
        if self._closed:
            text = f"this handle of {self._layout.path} was closed. Open the store again."
            raise ClosedError(text, path=self._layout.path, reason="closed")

    def _close_segment(self, fd: int) -> None:
        self._segment_fds.remove(fd)
        self._fs.close(fd)

    def _release(self) -> None:
        self._closed = True  # before any descriptor is closed: its number may be another file's at once
        while self._segment_fds:
            self._fs.close(self._segment_fds.pop())
        self._commit_point.close()
        self._lock.release()
        wait_for_removals()  # afterwards nothing of this handle keeps the file system from being unmounted
