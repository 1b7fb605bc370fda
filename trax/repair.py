"""Making a damaged store one that opens again: explicit, never automatic, and said in full before it is done.

:mod:`trax.repair_plan` decides what is lost and what stays. Nothing is thrown away: every file that is replaced, cut or
left out is first given a second name under ``removed/``. A crash at any point leaves the damaged store or the repaired
one, since one rename of the snapshot separates the two.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from types import TracebackType

from trax.errors import MissingFileError
from trax.inspection import Verification, verify_store
from trax.records import LogRecord
from trax.repair_plan import Plan, Planner
from trax.storage.local.commit_point import CommitPoint
from trax.storage.local.creation import survey
from trax.storage.local.fs import FileSystem, LocalFileSystem, write_all
from trax.storage.local.layout import Layout, file_numbers, segment_numbers
from trax.storage.local.lock import WriterLock
from trax.storage.local.refusal import asking
from trax.storage.local.segment import FRAME_BYTES, FRAME_RECORDS, Manner, SegmentWriter, create_segment
from trax.storage.local.snapshot import SegmentReference, Snapshot
from trax.storage.local.view import load_kept

_NO_LINKS = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
_COPY_BYTES = 1 << 20


class Repair:
    """A repair of the store at a path: planned when it is constructed, done by :meth:`carry_out`.

    It holds the store's lock until it is closed; StoreLockedError says who else does. ``plan`` says what is wrong, what
    will be lost and what stays.
    """

    def __init__(self, path: str | os.PathLike[str], *, fs: FileSystem | None = None) -> None:
        self._fs = fs or LocalFileSystem()
        self._layout = Layout(path)
        self.path = self._layout.path
        self.removed = os.path.join(self._layout.removed, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))
        with asking("look at", self.path), suppress(MissingFileError):
            survey(self._fs, self._layout, create=False)  # before anything is created: the lock file would be
        self._lock = WriterLock(self._fs, self._layout)
        try:
            self.plan: Plan = Planner(self._fs, self._layout).plan()
        except BaseException:
            self._lock.release()
            raise

    @property
    def needed(self) -> bool:
        return bool(self.plan.problems)

    @property
    def possible(self) -> bool:
        return self.plan.repaired is not None

    def carry_out(self) -> Verification:
        """Do it; what reading all of the repaired store has found. Durable when it returns.

        After a StorageError the store is as it was, but for the second names of its files; FinishedError: it may be
        repaired or not, and can be repaired again.
        """
        repaired = self.plan.repaired
        assert repaired is not None, "the caller asks whether it is possible"
        writer: SegmentWriter | None = None
        try:
            with asking("repair", self.path):
                self._make_directories()
                self._keep_files(repaired)
                if not repaired.segments or repaired.segments[-1].sealed is not None:
                    repaired, writer = self._with_new_segment(repaired)
                self._commit(repaired)
                if writer is not None:
                    # Only now: a segment that has a mark, and that no snapshot names, is the sign of a later snapshot.
                    writer.mark(repaired.sequence, closing=True)
                    writer.sync()  # makes durable: the mark, a half of which would be reported as a torn tail
                self._remove_what_is_not_named(repaired)
        finally:
            if writer is not None:
                self._fs.close(writer.fd)
        return verify_store(self.path, fs=self._fs)

    def close(self) -> None:
        """Let go of the store."""
        self._lock.release()

    def __enter__(self) -> Repair:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # Second names

    def _make_directories(self) -> None:
        for path in self.plan.directories:  # empty ones, which an opening makes again where a power loss has taken them
            with suppress(FileExistsError):
                self._fs.mkdir(path)

    def _keep_files(self, repaired: Snapshot) -> None:
        """Give every file that the repaired store does not have, or not as a whole, a name under ``removed/``."""
        layout = Layout(self._make_removed())
        made = {layout.path}
        for path, changes in self._endangered(repaired):
            target = os.path.join(layout.path, os.path.relpath(path, self.path))
            if os.path.dirname(target) not in made:
                made.add(os.path.dirname(target))
                self._fs.mkdir(os.path.dirname(target))
            self._keep_file(path, target, copy=changes)
        for directory in sorted(made, reverse=True):
            self._fs.fsync_directory(directory)  # makes durable: the second names, before the first ones go

    def _make_removed(self) -> str:
        with suppress(FileExistsError):
            self._fs.mkdir(self._layout.removed)
        self._fs.fsync_directory(self.path)  # makes durable: the name of removed/
        stem, tries = self.removed, 1
        while True:
            try:
                self._fs.mkdir(self.removed)
                break
            except FileExistsError:  # another repair in the same second
                tries += 1
                self.removed = f"{stem}-{tries}"
        self._fs.fsync_directory(self._layout.removed)  # makes durable: the name of this repair's directory
        return self.removed

    def _endangered(self, repaired: Snapshot) -> Iterator[tuple[str, bool]]:
        """Such files, each with whether it is one that later writers go on changing."""
        layout = self._layout
        if self._fs.kind(layout.snapshot) == "file":
            yield layout.snapshot, False
        whole = {reference.number for reference in repaired.segments} - self._cut_segments(repaired)
        active = {reference.number for reference in repaired.segments if reference.sealed is None}
        hidden = {number for name in self.plan.dropped for number in self.plan.log.holders.get(name, ())}
        for number in sorted(segment_numbers(self._fs.listdir(self.path))):
            if number not in whole or number in hidden:
                yield layout.segment(number), number in active
        for path in self._unnamed(repaired):
            if path not in map(layout.segment, segment_numbers(self._fs.listdir(self.path))):
                yield path, False

    def _cut_segments(self, repaired: Snapshot) -> set[int]:
        """The segment that now ends at the damage: its file stays, and what lies behind the damage is lost with it."""
        cut = repaired.segments[-1:] if self.plan.log.damage is not None else ()
        return {reference.number for reference in cut}

    def _keep_file(self, path: str, target: str, *, copy: bool) -> None:
        if not copy:
            try:
                self._fs.link(path, target)
                return
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
        self._copy(path, target)

    def _copy(self, path: str, target: str) -> None:
        source = self._fs.open(path)
        try:
            fd = self._fs.create(target, self._fs.mode(path))
            try:
                for offset in range(0, self._fs.size(source), _COPY_BYTES):
                    write_all(self._fs, fd, self._fs.pread(source, _COPY_BYTES, offset), offset)
                self._fs.fsync(fd)  # makes durable: the copy, before its original is changed
            finally:
                self._fs.close(fd)
        finally:
            self._fs.close(source)

    # The log

    def _with_new_segment(self, repaired: Snapshot) -> tuple[Snapshot, SegmentWriter]:
        """The snapshot with a new active segment, which holds the log that was put together, if it was."""
        manner = Manner(repaired.epoch, repaired.codec == "json", False)
        number = repaired.last_segment + 1
        path = self._layout.segment(number)
        mode = self._fs.mode(self._layout.snapshot) if self._fs.kind(self._layout.snapshot) == "file" else None
        log = self.plan.rewritten
        last = repaired.segments[-1].sealed if repaired.segments else None
        sequence = last.sequence if last is not None else 0
        writer = create_segment(self._fs, path, repaired.store_id, number, mode=mode, manner=manner, sequence=sequence)
        try:
            if log is not None:
                _write_records(writer, log.records_of(self._fs))
                writer.sync()  # makes durable: the records, before a snapshot names the segment that they are in
            self._fs.fsync_directory(self.path)  # makes durable: the segment's name, before a snapshot names it
        except BaseException:
            with suppress(OSError):  # nothing names it: the next repair or opening leaves it out
                self._fs.unlink(path)
            self._fs.close(writer.fd)
            raise
        segments = (*repaired.segments, SegmentReference(number, writer.salt, None, writer.proven))
        return replace(repaired, segments=segments, last_segment=number), writer

    def _commit(self, repaired: Snapshot) -> None:
        """Until the rename in here the store is the damaged one, from then on the repaired one."""
        commit_point = CommitPoint(self._fs, self._layout, repaired, identity_is_proof=self._lock.real)
        try:
            commit_point.replace(replace(repaired, created=time.time()))
        finally:
            commit_point.close()

    # Afterwards

    def _remove_what_is_not_named(self, repaired: Snapshot) -> None:
        """The first names of what was left out; what a crash leaves of them, the next opening sweeps away."""
        for path in list(self._unnamed(repaired)):
            with suppress(FileNotFoundError):
                self._fs.unlink(path)

    def _unnamed(self, repaired: Snapshot) -> Iterator[str]:
        fs, layout = self._fs, self._layout
        blobs = repaired.blob_files
        for reference in repaired.kept:
            blobs |= load_kept(fs, layout, repaired.store_id, reference).blob_files
        named = {reference.number for reference in repaired.segments}
        yield from map(layout.segment, sorted(segment_numbers(fs.listdir(layout.path)) - named))
        yield from map(layout.blob, sorted(file_numbers(fs.listdir(layout.blobs)) - {one.number for one in blobs}))
        kept = {reference.generation for reference in repaired.kept}
        yield from map(layout.kept_snapshot, sorted(file_numbers(fs.listdir(layout.kept)) - kept))
        yield from layout.unfinished_snapshots(fs.listdir(layout.path))


def _write_records(writer: SegmentWriter, records: Iterator[LogRecord]) -> None:
    together: list[LogRecord] = []
    nbytes = 0
    for record in records:
        together.append(record)
        nbytes += sum(map(len, record.entries.values()))
        if len(together) >= FRAME_RECORDS or nbytes >= FRAME_BYTES:
            writer.append_survivors([one.sequence for one in together], [one.entries for one in together])
            together, nbytes = [], 0
    if together:
        writer.append_survivors([one.sequence for one in together], [one.entries for one in together])
