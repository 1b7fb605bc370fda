"""File systems that count the places where a job may be cut off, and leave behind what the cut would leave.

Nothing here waits for a disk: what a killed process has written stays readable without any fsync, and what a power loss
leaves is worked out from what was asked for. So a run is fast, whatever it syncs.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import islice
from typing import Literal

from trax.storage.local.framing import FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES
from trax.storage.local.fs import LocalFileSystem
from trax.storage.local.layout import segment_numbers
from trax.testing.disks import crash_images
from trax.testing.errors import JobError
from trax.testing.points import CrashPoints
from trax.testing.recording import Image, RecordingFileSystem

Every = Literal["commit", "operation", "line"]

_LAST_EXTREME = 7  # crash_images() begins with eight disks: all or nothing of names, sizes, sectors; this is nothing


class _WithoutWaiting(LocalFileSystem):
    """Syncs nothing."""

    def fsync(self, fd: int) -> None:
        pass

    def fdatasync(self, fd: int) -> None:
        pass

    def fsync_directory(self, path: str) -> None:
        pass


class _Counting(LocalFileSystem):
    """Counts points, before and after what is done below ``root``.

    With ``every="operation"`` that is each call that changes or syncs something; otherwise only those that make a
    commit visible to the next process: a write of records to a segment, and the renaming of a snapshot. A sync changes
    nothing that a killed process leaves behind; ``syncs`` counts the end of those that make a commit durable, too.
    """

    def _begin(self, root: str, points: CrashPoints, every: Every, *, syncs: bool) -> None:
        self._root, self._points = root, points
        self._all, self._syncs = every == "operation", syncs
        self._paths: dict[int, str] = {}
        self._replaced_in: str | None = None
        self.commits = 0

    def open(self, path: str, *, write: bool = False) -> int:
        if write:
            self._check_inside(path)
        fd = super().open(path, write=write)
        self._paths[fd] = path
        return fd

    def create(self, path: str, mode: int | None = None) -> int:
        self._check_inside(path)
        with self._around("the creation of", path):
            fd = super().create(path, mode)
        self._paths[fd] = path
        return fd

    def close(self, fd: int) -> None:
        self._paths.pop(fd, None)
        super().close(fd)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        path = self._paths[fd]
        # A segment's own header commits nothing, and neither does a mark, which is a frame's header alone.
        commit = _is_segment(path) and offset >= SEGMENT_HEADER_BYTES and len(data) != FRAME_HEADER_BYTES
        with self._around("the write of a record to" if commit else "a write to", path, commit=commit):
            return super().pwrite(fd, data, offset)

    def allocate(self, fd: int, offset: int, nbytes: int) -> None:
        with self._around("the making of room in", self._paths[fd]):
            super().allocate(fd, offset, nbytes)

    def truncate(self, fd: int, nbytes: int) -> None:
        with self._around("the truncation of", self._paths[fd]):
            super().truncate(fd, nbytes)

    def fsync(self, fd: int) -> None:
        with self._synced(self._paths[fd]):
            super().fsync(fd)

    def fdatasync(self, fd: int) -> None:
        with self._synced(self._paths[fd]):
            super().fdatasync(fd)

    def rename(self, source: str, target: str) -> None:
        commit = os.path.basename(target) == "snapshot"
        with self._around("the replacement of", target, commit=commit):
            super().rename(source, target)
        if commit:
            self._replaced_in = os.path.dirname(target)

    def link(self, source: str, target: str) -> None:
        with self._around("the linking of", target):
            super().link(source, target)

    def unlink(self, path: str) -> None:
        with self._around("the removal of", path):
            super().unlink(path)

    def mkdir(self, path: str, mode: int | None = None) -> None:
        self._check_inside(path)
        with self._around("the making of", path):
            super().mkdir(path, mode)

    def fsync_directory(self, path: str) -> None:
        commit = self._syncs and path == self._replaced_in
        with self._around("the sync of the names in", path, commit=commit, only_after=True):
            super().fsync_directory(path)

    def _synced(self, path: str) -> AbstractContextManager[None]:
        return self._around("the sync of", path, commit=self._syncs and _is_segment(path), only_after=True)

    @contextmanager
    def _around(self, what: str, path: str, *, commit: bool = False, only_after: bool = False) -> Iterator[None]:
        counts = (commit or self._all) and self._is_inside(path)
        relative = os.path.relpath(path, self._root) if counts else ""
        if counts and (self._all or not only_after):
            self._points.reach(f"just before {what} {relative}")
        yield
        self.commits += commit and counts
        if counts:
            self._points.reach(f"just after {what} {relative}")

    def _is_inside(self, path: str) -> bool:
        return path == self._root or path.startswith(self._root + os.sep)

    def _check_inside(self, path: str) -> None:
        if not self._is_inside(path):
            text = (
                f"the job writes to a store outside of the directory that it was given: {path}. It would find there "
                f"what an earlier run has left. Let it open its stores in os.path.join(directory, …)."
            )
            raise JobError(text, path=path, reason="a store outside of the directory")


class KillingFileSystem(_Counting, _WithoutWaiting):
    """For a job that is killed: what was written is there for the next process."""

    def __init__(self, root: str, points: CrashPoints, every: Every) -> None:
        self._begin(root, points, every, syncs=False)


class PowerLossFileSystem(_Counting, RecordingFileSystem, _WithoutWaiting):
    """For a job whose power fails: of the stores, only what was synced is sure to be there."""

    def __init__(self, root: str, points: CrashPoints, every: Every) -> None:
        # What is there becomes known when a store first touches it: the job's own files are not ours to take away.
        RecordingFileSystem.__init__(self, root, goes_on=(Image(), []))
        self._begin(root, points, every, syncs=True)
        self._made: set[str] = set()

    def lose_power(self, seed: str, variant: int) -> None:
        """Put in the stores' place what a power loss might leave of them now. Nothing is done with them any more.

        Variant 0: nothing arrives that was not synced. Others: some of it does, as ``seed`` decides.
        """
        self._guard.acquire()
        images = crash_images(self.start, self.operations, random.Random(seed), variant, after=len(self.operations))
        _, image = next(islice(images, _LAST_EXTREME + variant, None))
        self._replace(image)

    def open(self, path: str, *, write: bool = False) -> int:
        if not write and not self._is_inside(path):
            return LocalFileSystem.open(self, path)
        self._know(path)
        return super().open(path, write=write)

    def create(self, path: str, mode: int | None = None) -> int:
        self._know_directory(os.path.dirname(self._relative(path)))
        return super().create(path, mode)

    def rename(self, source: str, target: str) -> None:
        self._know(source)
        self._know(target)
        super().rename(source, target)

    def link(self, source: str, target: str) -> None:
        self._know(source)
        super().link(source, target)

    def unlink(self, path: str) -> None:
        self._know(path)
        super().unlink(path)

    def mkdir(self, path: str, mode: int | None = None) -> None:
        self._know_directory(os.path.dirname(self._relative(path)))
        super().mkdir(path, mode)
        self._made.add(self._relative(path))

    def _know(self, path: str) -> None:
        """A file that was there before: it counts as synced."""
        with self._guard:
            relative = self._relative(path)
            if relative in self._names or not os.path.isfile(path):
                return
            self._know_directory(os.path.dirname(relative))
            with open(path, "rb") as file:
                self.start.contents[self._next] = file.read()
            self.start.names[relative] = self._names[relative] = self._next
            self._next += 1

    def _know_directory(self, relative: str) -> None:
        while relative and relative not in self._made:
            self.start.directories.add(relative)
            relative = os.path.dirname(relative)

    def _replace(self, image: Image) -> None:
        # What the job itself has removed, without the store's knowing, must not come back.
        gone = {file for path, file in self._names.items() if not os.path.lexists(os.path.join(self.root, path))}
        image.names = {path: file for path, file in image.names.items() if file not in gone}
        known, made = set(self.start.names), set()
        for operation in self.operations:
            made |= {operation.path} if operation.kind == "mkdir" else set()
            known |= {operation.path} if operation.kind in ("create", "link") else set()
            known |= {operation.target} if operation.kind == "rename" else set()
        for path in known:
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(self.root, path))
        for path in sorted(made - image.directories, reverse=True):
            with suppress(OSError):  # a file of the job's own lies in it
                os.rmdir(os.path.join(self.root, path))
        image.lay_out(self.root)


def _is_segment(path: str) -> bool:
    return bool(segment_numbers([os.path.basename(path)]))
