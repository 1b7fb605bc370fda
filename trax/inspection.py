"""Looking at a store without opening it for writing: what it is, every byte of it, and what is wrong with them.

Nothing here takes the lock, repairs or changes anything, so a store that is in use, or can't be opened, can still be
inspected.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from trax.errors import CorruptionError, MissingFileError, TraxError
from trax.records import GrowingSegment
from trax.storage.base import BlobReference, Entries, SnapshotInfo, Stored
from trax.storage.local.commit_point import load_snapshot
from trax.storage.local.creation import survey
from trax.storage.local.fs import FileSystem, LocalFileSystem
from trax.storage.local.layout import Layout
from trax.storage.local.lock import read_lock_file, read_owner_file
from trax.storage.local.opening import TornTail, check_is_latest
from trax.storage.local.owner import Owner, is_gone
from trax.storage.local.payload import MalformedPayloadError
from trax.storage.local.refusal import asking
from trax.storage.local.snapshot import KeptReference, SegmentReference, Snapshot, check_room
from trax.storage.local.view import check_blob, load_kept, open_segment, segment_frames, stored_names
from trax.storage.local.walk import Frame, malformed

_TRIES = 5


@dataclass
class Verification:
    """What reading every byte of a store has found. ``problems`` is empty for a store that is whole."""

    path: str
    problems: list[TraxError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    segments: int = 0
    records: int = 0
    names: int = 0
    blobs: int = 0
    snapshots: int = 0
    nbytes: int = 0

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclass
class NameInfo:
    """One name: what is stored of it, and what waits in the log behind its cut. Sizes are encoded, in bytes."""

    name: str
    checkpointed: bool = False
    cut: int = 0
    sequence: int | None = None
    place: Literal["snapshot", "blob"] | None = None
    nbytes: int = 0
    entries: int = 0
    entry_bytes: int = 0


@dataclass
class WriterInfo:
    """Who writes. ``held`` None: it can't be told; ``owner`` is who took the store last, empty when nobody says."""

    guard: Literal["lock", "owner file"]
    held: bool | None
    owner: Owner


@dataclass
class StoreInfo:
    """What a store is. ``problems`` says what could not be read of it; the figures are then those of the rest."""

    path: str
    snapshot: Snapshot
    writer: WriterInfo
    names: list[NameInfo] = field(default_factory=list)
    snapshots: list[SnapshotInfo] = field(default_factory=list)
    last_sequence: int = 0
    log_bytes: int = 0
    records: int = 0
    blobs: int = 0
    blob_bytes: int = 0
    removed: list[str] = field(default_factory=list)
    torn: TornTail | None = None
    problems: list[TraxError] = field(default_factory=list)


def verify_store(path: str | os.PathLike[str], *, fs: FileSystem | None = None) -> Verification:
    """Read and check the snapshots, every frame of the log, and every blob of the store at ``path``.

    StoreNotFoundError and NotAStoreError when there is no store; what is wrong with one is in ``problems``. A torn tail
    is no problem; it is in ``notes``.
    """
    fs = fs or LocalFileSystem()
    layout = Layout(path)
    with asking("look at", layout.path):
        for last_try in _tries():
            found = Verification(layout.path)
            try:
                survey(fs, layout, create=False)
                snapshot = _load(fs, layout)
            except CorruptionError as error:
                found.problems.append(error)
                return found
            except TraxError as error:
                if error.path != layout.snapshot:
                    raise
                found.problems.append(error)
                return found
            _verify(fs, layout, snapshot, found)
            if not _moved_on(fs, layout, snapshot, found.problems):
                break
            if last_try:
                found.problems = _of_named_files(fs, layout, found.problems)
                found.notes.append("a writer replaced the snapshot all the while: what it removed was not read")
    return found


def describe_store(path: str | os.PathLike[str], *, fs: FileSystem | None = None) -> StoreInfo:
    """What the store at ``path`` is, and what it holds.

    StoreNotFoundError and NotAStoreError when there is no store, and the error itself when its snapshot is damaged.
    """
    fs = fs or LocalFileSystem()
    layout = Layout(path)
    with asking("look at", layout.path):
        for last_try in _tries():
            survey(fs, layout, create=False)
            snapshot = _load(fs, layout)
            info = StoreInfo(layout.path, snapshot, find_writer(fs, layout), last_sequence=snapshot.sequence)
            _describe_snapshots(fs, layout, info)
            _describe_log(fs, layout, info)
            if fs.kind(layout.removed) == "directory":
                info.removed = fs.listdir(layout.removed)
            if not _moved_on(fs, layout, snapshot, info.problems):
                break
            if last_try:
                info.problems = _of_named_files(fs, layout, info.problems)
    return info


def find_writer(fs: FileSystem, layout: Layout) -> WriterInfo:
    """Who writes to the store now, or did last."""
    with asking("look at", layout.path):
        if fs.kind(layout.owner) == "file":
            owner = read_owner_file(fs, layout)
            return WriterInfo("owner file", bool(owner) and not is_gone(owner), owner)
        owner = read_lock_file(fs, layout)
    # A process that is gone holds no lock: then there is no need to ask, which might get in the way of an opening.
    return WriterInfo("lock", False if owner and is_gone(owner) else _is_locked(fs, layout), owner)


def _is_locked(fs: FileSystem, layout: Layout) -> bool | None:
    try:
        fd = fs.open(layout.lock)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        return fs.is_locked(fd)
    except OSError:  # a file system without locks, or a user who may not lock
        return None
    finally:
        fs.close(fd)


def _load(fs: FileSystem, layout: Layout) -> Snapshot:
    with asking("read", layout.snapshot):
        return load_snapshot(fs, layout.snapshot)


def _tries() -> Iterator[bool]:
    """A store that is in use moves on while it is read; one that is damaged as well would never be read to an end."""
    return map((_TRIES - 1).__eq__, range(_TRIES))


def _moved_on(fs: FileSystem, layout: Layout, snapshot: Snapshot, problems: list[TraxError]) -> bool:
    """Whether what was found may only mean that a writer has replaced the snapshot meanwhile."""
    return bool(problems) and _load(fs, layout).generation != snapshot.generation


def _of_named_files(fs: FileSystem, layout: Layout, problems: list[TraxError]) -> list[TraxError]:
    """Those that are still true of files which the snapshot of this moment names; no number is used for two files."""
    snapshot = _load(fs, layout)
    named = {layout.segment(segment.number) for segment in snapshot.segments}
    named |= {layout.kept_snapshot(kept.generation) for kept in snapshot.kept}
    named |= {layout.blob(file.number) for file in snapshot.blob_files}
    gone = {path for path in named if fs.kind(path) == "absent"}
    if gone and _moved_on(fs, layout, snapshot, problems):
        named -= gone
    return [problem for problem in problems if problem.path in named | {layout.blobs, layout.kept}]


# Verification


def _verify(fs: FileSystem, layout: Layout, snapshot: Snapshot, found: Verification) -> None:
    found.snapshots = 1
    found.names = len(stored_names(snapshot.names))
    blobs = snapshot.blobs
    for reference in snapshot.kept:
        blobs |= _verify_kept(fs, layout, snapshot, reference, found)
    for blob in sorted(blobs):
        _verify_blob(fs, layout, snapshot, blob, found)
    files = {file for blob in blobs for file in blob.files}
    found.blobs = len(files)
    found.nbytes += sum(file.nbytes for file in files)
    sequence = 0
    for segment in snapshot.segments:
        _verify_segment(fs, layout, snapshot, segment, sequence, found)
        sequence = segment.sealed.sequence if segment.sealed else sequence
    _verify_is_latest(fs, layout, snapshot, found)
    with asking("look at", layout.path):
        for directory in (layout.blobs, layout.kept):
            if fs.kind(directory) == "absent":
                text = f"{directory} is gone, and the store needs it, though it may be empty. 'trax repair' makes it."
                found.problems.append(MissingFileError(text, path=directory, reason="the directory is missing"))
        foreign = [entry for entry in fs.listdir(layout.path) if not layout.ours(entry)]
    found.notes += [f"{entry} is not part of the store" for entry in foreign]


def _verify_is_latest(fs: FileSystem, layout: Layout, snapshot: Snapshot, found: Verification) -> None:
    try:
        check_room(snapshot, layout.snapshot)
        check_is_latest(fs, layout, snapshot)
    except TraxError as error:
        found.problems.append(error)


def _verify_kept(
    fs: FileSystem, layout: Layout, snapshot: Snapshot, reference: KeptReference, found: Verification
) -> frozenset[BlobReference]:
    try:
        kept = load_kept(fs, layout, snapshot.store_id, reference)
    except TraxError as error:
        found.problems.append(error)
        return frozenset()
    found.snapshots += 1
    return kept.blobs


def _verify_blob(fs: FileSystem, layout: Layout, snapshot: Snapshot, blob: BlobReference, found: Verification) -> None:
    try:
        check_blob(fs, layout, snapshot.store_id, blob)
    except TraxError as error:
        found.problems.append(error)


def _verify_segment(
    fs: FileSystem, layout: Layout, snapshot: Snapshot, reference: SegmentReference, sequence: int, found: Verification
) -> None:
    found.segments += 1
    log = LogScan(fs, layout, snapshot.store_id, reference, sequence)
    try:
        for frame, _ in log:
            found.records += frame.header.record_count
        if log.latest_epoch > snapshot.epoch or log.published > snapshot.sequence:
            text = f"{layout.snapshot} is older than the log that it names: an older copy of it was put back."
            reason = "the snapshot is older than the files beside it"
            found.problems.append(CorruptionError(text, path=layout.snapshot, reason=reason))
    except TraxError as error:
        found.problems.append(error)
    found.nbytes += log.nbytes
    torn = log.torn
    if torn is not None and not find_writer(fs, layout).held:
        found.notes.append(
            f"{torn.path} has a torn tail: its last {torn.nbytes:,} bytes, from byte {torn.offset:,} on, are not whole "
            f"records ({torn.reason}); a crash cut them off, and the next writer leaves them out"
        )


class LogScan:
    """Reads one segment to its end: each frame, verified, with its entries. ``torn`` and ``nbytes`` are set then."""

    def __init__(
        self, fs: FileSystem, layout: Layout, store_id: bytes, reference: SegmentReference, sequence: int
    ) -> None:
        self._fs, self._layout, self._store_id = fs, layout, store_id
        self._reference, self._sequence = reference, sequence
        self.torn: TornTail | None = None
        self.nbytes = 0
        self.latest_epoch = self.published = 0

    def __iter__(self) -> Iterator[tuple[Frame, list[Entries]]]:
        segment = open_segment(self._fs, self._layout, self._store_id, self._reference, self._sequence)
        growing = GrowingSegment(self._fs, segment)
        try:
            self.nbytes = self._fs.size(segment.fd)
            sealed = self._reference.sealed is not None
            for frame in segment_frames(self._fs, segment, None) if sealed else growing.frames():
                try:
                    yield frame, list(frame.entries())
                except MalformedPayloadError as error:
                    raise malformed(error, segment.path, frame.header.first_sequence) from error
            self.latest_epoch, self.published = growing.latest_epoch, growing.published
            if growing.fault is not None:
                self.torn = TornTail(segment.path, growing.whole, growing.end - growing.whole, growing.fault)
        finally:
            growing.close()


# Description


def _describe_snapshots(fs: FileSystem, layout: Layout, info: StoreInfo) -> None:
    blobs = info.snapshot.blob_files
    for reference in info.snapshot.kept:
        try:
            kept = load_kept(fs, layout, info.snapshot.store_id, reference)
        except TraxError as error:
            info.problems.append(error)
            continue
        blobs |= kept.blob_files
        info.snapshots.append(SnapshotInfo(kept.sequence, kept.created, stored_names(kept.names)))
    current = info.snapshot
    info.snapshots.append(SnapshotInfo(current.sequence, current.created, stored_names(current.names)))
    info.blobs = len(blobs)
    info.blob_bytes = sum(blob.nbytes for blob in blobs)


def _describe_log(fs: FileSystem, layout: Layout, info: StoreInfo) -> None:
    stored = info.snapshot.names
    found = {name: _describe_name(name, one) for name, one in stored.items() if one.value is not None}
    sequence = 0
    for reference in info.snapshot.segments:
        log = LogScan(fs, layout, info.snapshot.store_id, reference, sequence)
        sequence = reference.sealed.sequence if reference.sealed else sequence
        try:
            for frame, every in log:
                info.records += frame.header.record_count
                info.last_sequence = max(info.last_sequence, frame.sequences[-1])
                for entries in every:
                    _count_entries(found, stored, entries)
        except TraxError as error:
            info.problems.append(error)
        info.log_bytes += reference.sealed.offset if reference.sealed else log.nbytes
        info.torn = None if info.writer.held else log.torn
    info.names = [found[name] for name in sorted(found)]


def _describe_name(name: str, stored: Stored) -> NameInfo:
    if isinstance(stored.value, BlobReference):
        return NameInfo(name, True, stored.cut, stored.sequence, "blob", stored.value.stored_bytes)
    return NameInfo(name, True, stored.cut, stored.sequence, "snapshot", len(stored.value or b""))


def _count_entries(found: dict[str, NameInfo], stored: Mapping[str, Stored], entries: Entries) -> None:
    cut = stored[entries.name].cut if entries.name in stored else 0
    if entries.sequences[-1] > cut:
        waiting = entries.within(cut, entries.sequences[-1])
        name = found.setdefault(entries.name, NameInfo(entries.name, cut=cut))
        name.entries += len(waiting.sequences)
        name.entry_bytes += len(waiting.data)
