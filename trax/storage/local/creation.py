"""What is at a path, and making a store where there is none.

A crash anywhere in the creation leaves a path that opens as a new store; once it has ended, a power loss leaves the
store.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

from trax.errors import CorruptionError, NotAStoreError, StoreNotFoundError
from trax.storage.local.commit_point import missing_file
from trax.storage.local.framing import (
    FRAME_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    decode_frame_header,
    decode_segment_header,
)
from trax.storage.local.fs import FileSystem
from trax.storage.local.layout import Layout, file_numbers, segment_numbers
from trax.storage.local.refusal import asking
from trax.storage.local.segment import Manner, create_segment
from trax.storage.local.snapshot import SegmentReference, Snapshot


def survey(fs: FileSystem, layout: Layout, *, create: bool) -> bool:
    """Whether there is a store at the path (True) or room for a new one (False); an error for anything else."""
    with asking("look at", layout.path):
        return _survey(fs, layout, create=create)


def _survey(fs: FileSystem, layout: Layout, *, create: bool) -> bool:
    kind = fs.kind(layout.path)
    if kind == "absent" and create:
        return False
    if kind == "absent":
        text = f"there is no store at {layout.path}. mode='a' creates one."
        raise StoreNotFoundError(text, path=layout.path, reason="absent")
    if kind != "directory":
        text = f"{layout.path} is a {kind}, and a store is a directory. Choose another path."
        raise NotAStoreError(text, path=layout.path, reason=f"a {kind}")
    entries = fs.listdir(layout.path)
    for path in filter(fs.is_link, layout.fixed):
        text = (
            f"{path} is a symbolic link. What belongs to a store must not lie elsewhere, where other files could be "
            f"read, written and removed in its name. Nothing was changed. Put what it leads to in its place."
        )
        raise CorruptionError(text, path=path, reason="it is a symbolic link")
    if fs.kind(layout.snapshot) == "file":
        return True
    if fs.kind(layout.snapshot) != "absent":
        text = f"{layout.snapshot} is not a file: this directory is not a store, or it was damaged."
        raise NotAStoreError(text, path=layout.snapshot, reason="not a file")
    return _survey_without_snapshot(fs, layout, entries, create=create)


def _survey_without_snapshot(fs: FileSystem, layout: Layout, entries: list[str], *, create: bool) -> bool:
    # A crash while a store was being created leaves at most an empty first segment; anything more had a snapshot.
    for number in segment_numbers(entries):
        if number > 1 or _was_used(fs, layout.segment(number)):
            raise missing_file(layout.snapshot)
    for directory in (layout.blobs, layout.kept):
        if fs.kind(directory) == "directory" and file_numbers(fs.listdir(directory)):
            raise missing_file(layout.snapshot)
    if not create:
        text = f"there is no store in {layout.path}. mode='a' creates one."
        raise StoreNotFoundError(text, path=layout.path, reason="no snapshot")
    foreign = [entry for entry in entries if not layout.ours(entry) and not entry.startswith(".")]
    if foreign:
        names = ", ".join(map(repr, foreign[:3])) + (", …" if len(foreign) > 3 else "")
        text = f"{layout.path} holds files that are not a store's: {names}. Choose an empty or a new directory."
        raise NotAStoreError(text, path=layout.path, reason="foreign files")
    return False


def _was_used(fs: FileSystem, path: str) -> bool:
    """Whether a writer has opened the first segment: it then holds records, or a mark of the writer's epoch."""
    fd = fs.open(path)
    try:
        data = fs.pread(fd, SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES + 1, 0)
    finally:
        fs.close(fd)
    if len(data) > SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES:
        return True
    header = decode_segment_header(data)
    if header is None or len(data) <= SEGMENT_HEADER_BYTES:
        return False
    mark = decode_frame_header(data, SEGMENT_HEADER_BYTES, header.salt, SEGMENT_HEADER_BYTES)
    return mark is not None and mark.epoch > 0


def make_directories(fs: FileSystem, layout: Layout, mode: int | None = None) -> None:
    """Create the store's directory and those above it; the names are on stable storage when this returns.

    ``mode`` overrides the umask for the store's own directories.
    """
    missing: list[str] = []
    path = layout.path
    while fs.kind(path) == "absent":
        missing.append(path)
        path = Layout(path).parent
    for path in [*reversed(missing), layout.blobs, layout.kept]:
        with suppress(FileExistsError):
            fs.mkdir(path, mode if path.startswith(layout.path) else None)
        # Makes durable: the directory's name, or a power loss takes the whole store. Synced even if it existed: a
        # crash may have come between another attempt's mkdir and its fsync.
        fs.fsync_directory(Layout(path).parent)
    fs.fsync_directory(layout.parent)


def first_snapshot(fs: FileSystem, layout: Layout, codec: str) -> Snapshot:
    """The snapshot of a new store, not yet written, and its first segment, which is."""
    store_id = os.urandom(16)
    path = layout.segment(1)
    with asking("create", path):
        with suppress(FileNotFoundError):
            fs.unlink(path)  # an empty one, left by a crash inside the creation
        manner = Manner(epoch=0, lines=codec == "json", preallocate=False)
        writer = create_segment(fs, path, store_id, 1, mode=None, manner=manner, sequence=0)
        try:
            writer.mark(closing=True)
            writer.sync()  # makes durable: that the segment is free for the first writer
        finally:
            fs.close(writer.fd)
        fs.fsync_directory(layout.path)  # makes durable: the segment's name
    segments = (SegmentReference(1, writer.salt, None),)
    return Snapshot(store_id=store_id, codec=codec, keep=1, created=time.time(), last_segment=1, segments=segments)
