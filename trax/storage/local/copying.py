"""A consistent copy of a store that is held for writing."""

from __future__ import annotations

from trax.errors import InvalidArgumentError
from trax.storage.local.commit_point import CommitPoint
from trax.storage.local.creation import make_directories, survey
from trax.storage.local.fs import FileSystem, write_all
from trax.storage.local.layout import Layout
from trax.storage.local.refusal import asking
from trax.storage.local.state import State, blobs_of

_CHUNK_BYTES = 1 << 20


def copy_store(fs: FileSystem, source: Layout, target: Layout, state: State, mode: int | None) -> None:
    """Copy the files of a state to a directory that does not exist or is empty; durable when it returns.

    Nothing may be published meanwhile; records that are appended meanwhile are not copied.
    """
    snapshot, kept, writer, _ = state
    end = writer.tail.offset
    with asking("copy to", target.path):
        if survey(fs, target, create=True):
            text = f"{target.path} holds a store already. Copy to a directory that is new or empty."
            raise InvalidArgumentError(text, path=target.path, reason="a store is there already")
        make_directories(fs, target, fs.mode(source.path))
        for blob in blobs_of(snapshot, kept):
            _copy(fs, source.blob(blob.number), target.blob(blob.number), mode)
        for one in snapshot.kept:
            _copy(fs, source.kept_snapshot(one.generation), target.kept_snapshot(one.generation), mode)
        for segment in snapshot.segments:
            nbytes = None if segment.sealed else end
            _copy(fs, source.segment(segment.number), target.segment(segment.number), mode, nbytes)
        for directory in (target.blobs, target.kept, target.path):
            fs.fsync_directory(directory)  # makes durable: the names of what the snapshot will name
        commit_point = CommitPoint(fs, target, snapshot, identity_is_proof=True)
        commit_point.mode = mode
        commit_point.replace(snapshot)
        commit_point.close()


def _copy(fs: FileSystem, source: str, target: str, mode: int | None, nbytes: int | None = None) -> None:
    fd = fs.open(source)
    try:
        end = fs.size(fd) if nbytes is None else nbytes
        copy = fs.create(target, mode)
        try:
            for offset in range(0, end, _CHUNK_BYTES):
                write_all(fs, copy, fs.pread(fd, min(_CHUNK_BYTES, end - offset), offset), offset)
            fs.fsync(copy)  # makes durable: the copy's contents
        finally:
            fs.close(copy)
    finally:
        fs.close(fd)
