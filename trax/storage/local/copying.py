"""A consistent copy of a store that is held for writing."""

from __future__ import annotations

from contextlib import suppress

from trax.errors import FinishedError, InvalidArgumentError, StorageError
from trax.storage.local.commit_point import CommitPoint
from trax.storage.local.creation import make_directories, survey
from trax.storage.local.fs import FileSystem, write_all
from trax.storage.local.layout import Layout
from trax.storage.local.refusal import asking
from trax.storage.local.snapshot import Snapshot
from trax.storage.local.state import State, blobs_of

_CHUNK_BYTES = 1 << 20


def copy_store(fs: FileSystem, source: Layout, target: Layout, state: State, mode: int | None) -> None:
    """Copy the files of a state to a directory that does not exist or is empty; durable when it returns.

    Nothing may be published meanwhile; records that are appended meanwhile are not copied.
    """
    with asking("copy to", target.path):
        if survey(fs, target, create=True):
            text = f"{target.path} holds a store already. Copy to a directory that is new or empty."
            raise InvalidArgumentError(text, path=target.path, reason="a store is there already")
        make_directories(fs, target, fs.mode(source.path))
        pairs = _files(source, target, state)
        try:
            for original, copy, nbytes in pairs:
                _copy(fs, original, copy, mode, nbytes)
            for directory in (target.blobs, target.kept, target.path):
                fs.fsync_directory(directory)  # makes durable: the names of what the snapshot will name
            _publish(fs, target, state.snapshot, mode)
        except BaseException:
            # What stayed would look like the remains of a store, and the call could not be repeated.
            for path in (target.snapshot, *(copy for _, copy, _ in pairs)):
                with suppress(OSError):
                    fs.unlink(path)
            raise


def _publish(fs: FileSystem, target: Layout, snapshot: Snapshot, mode: int | None) -> None:
    commit_point = CommitPoint(fs, target, snapshot, identity_is_proof=True)
    commit_point.mode = mode
    try:
        commit_point.replace(snapshot)
    except FinishedError as error:  # the copy's commit point is finished; the store that was copied goes on
        text = f"could not copy to {target.path}: {error.reason}. Nothing of the copy is left; repeat the call."
        raise StorageError(text, path=target.path, reason=error.reason) from error
    finally:
        commit_point.close()


def _files(source: Layout, target: Layout, state: State) -> list[tuple[str, str, int | None]]:
    """What a state consists of besides its snapshot: each file, where its copy goes, and how much of it (None: all)."""
    snapshot, kept, writer, _ = state
    pairs: list[tuple[str, str, int | None]] = []
    for blob in blobs_of(snapshot, kept):
        pairs.append((source.blob(blob.number), target.blob(blob.number), None))
    for one in snapshot.kept:
        pairs.append((source.kept_snapshot(one.generation), target.kept_snapshot(one.generation), None))
    for segment in snapshot.segments:
        nbytes = None if segment.sealed else writer.tail.offset
        pairs.append((source.segment(segment.number), target.segment(segment.number), nbytes))
    return pairs


def _copy(fs: FileSystem, source: str, target: str, mode: int | None, nbytes: int | None) -> None:
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
