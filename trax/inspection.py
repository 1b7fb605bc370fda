"""Looking at a store without opening it for writing: every byte of it, and what is wrong with them.

Nothing here takes the lock, repairs or changes anything; a store that can't be opened can still be inspected.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from trax.errors import TraxError
from trax.storage.base import BlobReference
from trax.storage.local.commit_point import load_snapshot
from trax.storage.local.fs import FileSystem, LocalFileSystem
from trax.storage.local.layout import Layout
from trax.storage.local.opening import survey
from trax.storage.local.refusal import asking
from trax.storage.local.snapshot import KeptReference, SegmentReference, Snapshot
from trax.storage.local.view import check_blob, load_kept, open_segment, segment_frames


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


def verify_store(path: str | os.PathLike[str], *, fs: FileSystem | None = None) -> Verification:
    """Read and check the snapshots, every frame of the log, and every blob of the store at ``path``.

    StoreNotFoundError and NotAStoreError when there is no store; what is wrong with one is in ``problems``.
    """
    fs = fs or LocalFileSystem()
    layout = Layout(path)
    survey(fs, layout, create=False)
    found = Verification(layout.path)
    try:
        with asking("read", layout.snapshot):
            snapshot = load_snapshot(fs, layout.snapshot)
    except TraxError as error:
        found.problems.append(error)
        return found
    found.snapshots = 1
    found.names = sum(stored.value is not None for stored in snapshot.names.values())
    blobs = snapshot.blobs()
    for reference in snapshot.kept:
        blobs |= _verify_kept(fs, layout, reference, found)
    for blob in sorted(blobs):
        _verify_blob(fs, layout, snapshot, blob, found)
    sequence = 0
    for segment in snapshot.segments:
        _verify_segment(fs, layout, snapshot, segment, sequence, found)
        sequence = segment.sealed.sequence if segment.sealed else sequence
    found.notes += [f"{entry} is not part of the store" for entry in fs.listdir(layout.path) if not layout.ours(entry)]
    return found


def _verify_kept(fs: FileSystem, layout: Layout, reference: KeptReference, found: Verification) -> set[BlobReference]:
    try:
        kept = load_kept(fs, layout, reference)
    except TraxError as error:
        found.problems.append(error)
        return set()
    found.snapshots += 1
    return kept.blobs()


def _verify_blob(fs: FileSystem, layout: Layout, snapshot: Snapshot, blob: BlobReference, found: Verification) -> None:
    try:
        check_blob(fs, layout, snapshot.store_id, blob)
    except TraxError as error:
        found.problems.append(error)
    found.blobs += 1
    found.nbytes += blob.nbytes


def _verify_segment(
    fs: FileSystem, layout: Layout, snapshot: Snapshot, reference: SegmentReference, sequence: int, found: Verification
) -> None:
    found.segments += 1
    try:
        segment = open_segment(fs, layout, snapshot.store_id, reference, sequence)
    except TraxError as error:
        found.problems.append(error)
        return
    try:
        for frame in segment_frames(fs, segment, None):
            for _ in frame.entries():
                pass
            found.records += frame.header.record_count
        found.nbytes += fs.size(segment.fd)
    except TraxError as error:
        found.problems.append(error)
    finally:
        fs.close(segment.fd)
